package split

import (
	"bytes"

	"howdah/router/route/statement"
)

// block is a READ ONLY transaction block that a standby carries out for the session. READ COMMITTED ones are, for those can be gone on with on the
// primary at any statement: each has a snapshot of its own, and the block can neither have written anything nor hold anything that the primary lacks. One that
// is REPEATABLE READ has one snapshot, which the primary cannot be given, so it is only where all of it is in one batch: once that has been answered it has
// ended, or failed, and in a failed block nothing is read any more.
type block struct {
	open bool
	// failed: a statement in it has failed, and the client knows.
	failed bool
	// read: a query has run in it, so that its modes can no longer be changed.
	read bool
	// begin is the text that began it.
	begin []byte
}

// takes reports whether a statement of the batch may be carried out by a standby, given those before it, and takes in what it does to the block.
func (c *batch) takes(v *statement.Verdict, text []byte, t *Tracker) bool {
	switch {
	case c.ends:
		return false // what follows a block is judged when the block has ended
	case reads(v):
		c.queries = c.queries || v.Kinds&^(1<<statement.Show) != 0
		return !t.refuses(text)
	case v.Statements != 1 || v.Is(statement.FlagOpaque):
		return false
	case t.block.open || c.begin != nil:
		c.ends = v.Block && (v.Kind == statement.Commit || v.Kind == statement.Rollback)
		return c.ends
	}
	if c.statements > 0 || !v.BeginsStandbyBlock() {
		return false
	}
	c.begin, c.isolation = text, v.Isolation
	return true
}

// leavesSnapshot reports whether the batch begins a REPEATABLE READ block and does not end it.
func (c *batch) leavesSnapshot() bool {
	return c.begin != nil && c.isolation > statement.ReadCommitted && !c.ends
}

// InBlock reports whether a standby has a transaction block of the session's.
func (t *Tracker) InBlock() bool { return t.block.open }

// BeginsBlock reports whether the batch that Read named begins a transaction block, whether that has the isolation level of the session's
// default_transaction_isolation, and whether the batch also ends it, so that it may be REPEATABLE READ.
func (t *Tracker) BeginsBlock() (begins, byDefault, ends bool) {
	return t.batch.begin != nil, t.batch.isolation == 0, t.batch.ends
}

// blockAfter takes in the transaction status of the standby after a batch.
func (t *Tracker) blockAfter(status byte) {
	if t.batch.begin != nil {
		t.block.begin, t.block.read = append(t.block.begin[:0], t.batch.begin...), false
	}
	t.block.read = t.block.read || t.batch.queries
	t.block.open, t.block.failed = status != 'I', status == 'E'
}

// readBlock makes a block one in which a query has run: it takes a snapshot, returns no rows, and leaves nothing. The line break ends a comment that the
// text of BEGIN may end in.
const readBlock = "\n;DECLARE the_block_read_on_a_standby CURSOR FOR SELECT 1;CLOSE the_block_read_on_a_standby"

// failBlock makes a block fail as one has that failed on a standby.
const failBlock = "\n;ROLLBACK TO SAVEPOINT the_block_failed_on_a_standby"

// TakeOver returns what TakeOver is about: a Query that begins, on the primary, the block that the standby has. From then on the primary is taken to have it.
func (t *Tracker) TakeOver() []byte {
	text := bytes.Clone(t.block.begin)
	if t.block.read {
		text = append(text, readBlock...)
	}
	if t.block.failed {
		text = append(text, failBlock...)
	}
	t.block.open = false
	t.known.unnamed.onPrimary = false // a Query takes its place
	t.known.stray, t.known.there = false, false
	return appendMessage(nil, 'Q', append(text, 0))
}
