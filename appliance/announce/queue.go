package announce

// timed is what waits in a queue.
type timed interface {
	when() int64 // Unix nanoseconds
	place() *int32
}

// queue is a heap by time whose entries know their place; -1 is none. It is a
// heap.Interface.
type queue[T timed] []T

func (q queue[T]) Len() int           { return len(q) }
func (q queue[T]) Less(i, j int) bool { return q[i].when() < q[j].when() }

func (q queue[T]) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	*q[i].place(), *q[j].place() = int32(i), int32(j)
}

func (q *queue[T]) Push(x any) {
	t := x.(T)
	*t.place() = int32(len(*q))
	*q = append(*q, t)
}

func (q *queue[T]) Pop() any {
	var none T
	last := len(*q) - 1
	t := (*q)[last]
	(*q)[last] = none
	*q = (*q)[:last]
	*t.place() = -1
	return t
}
