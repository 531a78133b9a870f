package spv

// Remembered returns how many proofs are.
func (b *Backend) Remembered() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.proven)
}
