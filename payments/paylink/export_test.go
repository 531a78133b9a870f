package paylink

// WaitEnded waits until a sale's goroutine has ended.
func WaitEnded(s Sale) { <-s.(*sale).done }
