package peerwire

// queue is a ring of requests in the order of their arrival. It takes memory
// from the first request on, and then no more.
type queue struct {
	ring []request
	head int
	n    int
}

func (q *queue) full(most int) bool { return q.n >= most }

func (q *queue) push(r request, most int) {
	if q.n == len(q.ring) {
		// Most peers keep far fewer requests in flight than they may.
		grown := make([]request, min(most, max(32, 2*len(q.ring))))
		for i := range q.n {
			grown[i] = *q.at(i)
		}
		q.ring, q.head = grown, 0
	}
	*q.at(q.n) = r
	q.n++
}

func (q *queue) at(i int) *request {
	i += q.head
	if i >= len(q.ring) {
		i -= len(q.ring)
	}
	return &q.ring[i]
}

func (q *queue) peek() (request, bool) {
	if q.n == 0 {
		return request{}, false
	}
	return q.ring[q.head], true
}

func (q *queue) pop() {
	q.head++
	if q.head == len(q.ring) {
		q.head = 0
	}
	q.n--
}

// remove takes out the first request that is r.
func (q *queue) remove(r request) bool {
	for i := range q.n {
		if *q.at(i) == r {
			for ; i > 0; i-- {
				*q.at(i) = *q.at(i - 1)
			}
			q.pop()
			return true
		}
	}
	return false
}

func (q *queue) clear() { q.head, q.n = 0, 0 }
