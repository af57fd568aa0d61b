package session

// kind is what a request was, as far as its answer differs.
type kind uint8

const (
	kindParse kind = iota + 1
	kindBind
	kindDescribe
	kindExecute
	kindClose
	kindQuery
	kindSync
	kindCall
	kindCopyEnd // CopyDone or CopyFail that has not met its copy yet
	kindHidden  // a Parse or a Close that is not the client's
	kindBlock   // a Query that is not the client's and begins a transaction block
)

// endsInReady reports whether the request is answered by a ReadyForQuery in the end.
func (k kind) endsInReady() bool {
	return k == kindQuery || k == kindSync || k == kindCall || k == kindBlock
}

// extended reports whether an error in the request makes the server skip to the next Sync.
func (k kind) extended() bool { return k >= kindParse && k <= kindClose || k == kindHidden }

// request is one byte: a kind, and what the request does to the transaction it runs in.
type request uint8

func newRequest(k kind, e effect) request { return request(k)<<4 | request(e) }

func (r request) kind() kind     { return kind(r >> 4) }
func (r request) effect() effect { return effect(r & 15) }

// requests is the queue of what the client asked and the server has not answered, oldest first: a
// ring that grows, one byte for each. How long it gets is bounded by what fits into the sockets
// between the client and the server.
type requests struct {
	ring  []request
	first int
	count int
	// turns is how many of them end in a ReadyForQuery.
	turns int
}

// keepRing is the size up to which an empty ring is kept for later.
const keepRing = 4096

func (q *requests) len() int { return q.count }

func (q *requests) at(i int) request { return q.ring[(q.first+i)&(len(q.ring)-1)] }

func (q *requests) push(r request) {
	if q.count == len(q.ring) {
		grown := make([]request, max(32, 2*len(q.ring)))
		for i := range q.count {
			grown[i] = q.at(i)
		}
		q.ring, q.first = grown, 0
	}
	q.ring[(q.first+q.count)&(len(q.ring)-1)] = r
	q.count++
	if r.kind().endsInReady() {
		q.turns++
	}
}

func (q *requests) pop() request {
	r := q.at(0)
	if r.kind().endsInReady() {
		q.turns--
	}
	q.first = (q.first + 1) & (len(q.ring) - 1)
	if q.count--; q.count == 0 && len(q.ring) > keepRing {
		q.ring, q.first = nil, 0
	}
	return r
}

// answer takes the oldest request off if it is of kind k: the server has answered it.
func (q *requests) answer(k kind) (request, bool) {
	if q.count == 0 || q.at(0).kind() != k {
		return 0, false
	}
	r := q.pop()
	q.trim()
	return r, true
}

// hidden reports whether the oldest request is not the client's.
func (q *requests) hidden() bool { return q.count > 0 && q.at(0).kind() == kindHidden }

// hiddenBlock reports whether the oldest request is a Query that is not the client's.
func (q *requests) hiddenBlock() bool { return q.count > 0 && q.at(0).kind() == kindBlock }

// trim drops ends of copies that met none: they are passed over by the server.
func (q *requests) trim() {
	for q.count > 0 && q.at(0).kind() == kindCopyEnd {
		q.pop()
	}
}

// ready takes everything up to the request that a ReadyForQuery answers. Without one the server
// answered something that was taken off early, which leaves nothing to do.
func (q *requests) ready() {
	for q.count > 0 {
		if q.pop().kind().endsInReady() {
			break
		}
	}
	q.trim()
}

// fail notes an ErrorResponse. It reports whether the server now skips up to a Sync that has not
// been sent yet.
func (q *requests) fail() bool {
	if q.count == 0 || !q.at(0).kind().extended() {
		return false
	}
	for q.count > 0 {
		if q.at(0).kind() == kindSync {
			return false
		}
		q.pop()
	}
	return true
}

// beginCopyIn notes that the server takes copy data for the oldest request. Syncs that were sent
// behind it are swallowed by the copy (CopyGetData in PostgreSQL's
// src/backend/commands/copyfromparse.c), up to the end of the copy if that was sent too, which it
// reports.
func (q *requests) beginCopyIn() (ended bool) {
	if q.count == 0 {
		return false
	}
	kept := 1
	for i := 1; i < q.count; i++ {
		r := q.at(i)
		if !ended && r.kind() == kindSync {
			q.turns--
			continue
		}
		if !ended && r.kind() == kindCopyEnd {
			ended = true
			continue
		}
		q.ring[(q.first+kept)&(len(q.ring)-1)] = r
		kept++
	}
	q.count = kept
	return ended
}
