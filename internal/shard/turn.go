package shard

import (
	"runtime"
	"time"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/internal/netpoll"
)

// What the loop works with (see Shard) belongs to whoever has the turn: one goroutine at a time. Most of the time that is
// not the loop. A caller whose jobs never block queues them with Offer and has them executed with Serve: if the shard is
// idle, Serve takes the turn and executes the group on the caller's own goroutine, with whatever others have queued by
// then; if it is not, whoever has the turn executes them. So one client costs no switch between goroutines, and many
// share a group. Everything else is the loop's: jobs that may block, control calls, ticks, what did not fit in a group,
// and what was queued while somebody had the turn.
//
// Invariants, under mu:
//
//  1. owned is true from the moment somebody takes the turn until endTurn; the loop's fields are not touched otherwise.
//  2. While the loop wants the turn nobody else takes it, so it comes after one group at most.
//  3. Nobody but the loop takes the turn while there is work that is the loop's: queues are served in order.
//  4. What is queued when the turn ends wakes the loop, so no job is left behind by an owner that came before it.

// Offer queues j like Submit. The caller must call Serve afterwards, on any goroutine, and j must not block: it may run on
// the goroutine of any caller of Serve or Ingest. The only error is ErrClosed.
func (s *Shard) Offer(j Job) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return ErrClosed
	}
	s.mu.jobs = append(s.mu.jobs, j)
	return nil
}

const (
	// slowCommit is how long the commit of a group takes that has waited for a disk, or for a flush; nobody but the loop
	// executes groups for slowFor behind one, since a caller may have others to serve.
	slowCommit = 20 * time.Millisecond
	slowFor    = 100 * time.Millisecond
)

// beginCommit is when the commit that noteCommit is told of begins.
func (s *Shard) beginCommit() time.Time {
	s.waited = 0 // the loop ingests without noting what it waited
	return time.Now()
}

// noteCommit takes what the commit took that has begun then. What the loop waited for a flush's pace does not count: that is over.
func (s *Shard) noteCommit(begun time.Time) {
	if time.Since(begun)-s.waited > slowCommit {
		s.slow.Store(time.Now().Add(slowFor).UnixNano())
	}
}

// isSlow reports whether groups are the loop's for now.
func (s *Shard) isSlow() bool {
	until := s.slow.Load()
	return until != 0 && time.Now().UnixNano() < until
}

// A Hold remembers of which shards' new offsets the readers of the log that wait, replicas' feeders above all, were not told yet, so that
// they are told of several groups at once. The zero value is ready; one goroutine uses it. Whoever holds announces, and soon.
type Hold struct{ logs []*backlog.Log }

// Empty reports whether there is nothing to announce.
func (h *Hold) Empty() bool { return len(h.logs) == 0 }

// Note notes that a log has something to announce.
func (h *Hold) Note(l *backlog.Log) { h.logs = append(h.logs, l) }

// Announce tells the readers what they were not told.
func (h *Hold) Announce() {
	for i, l := range h.logs {
		l.Announce()
		h.logs[i] = nil
	}
	h.logs = h.logs[:0]
}

// Serve has the jobs that were offered executed: now, by the caller, if the shard is idle; otherwise by whoever is at it.
// The jobs' Committed may have been called on return, or may be called later. With gather, others that are about to offer jobs may
// do so first: one append, one wake-up of each feeder, for all of them. Who has offered for many does not gather. With hold, which may be
// nil, it is the caller who announces what was executed here.
func (s *Shard) Serve(gather bool, hold *Hold) {
	if s.isSlow() {
		poke(s.wake)
		return
	}
	s.mu.Lock()
	if len(s.mu.jobs) == 0 || !s.takeFreeTurnLocked() {
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	if gather {
		runtime.Gosched()
	}
	s.mu.Lock()
	if s.mu.blocking == 0 {
		s.pending, s.mu.jobs = s.mu.jobs, s.pending[:0]
	}
	s.mu.Unlock()
	if len(s.pending) > 0 {
		s.hold = hold
		s.runGroup()
		s.hold = nil
	}
	s.endTurn()
}

// takeFreeTurnLocked takes the turn for another than the loop, if it is free and there is nothing that is the loop's. It
// reports whether it did; endTurn gives it back.
func (s *Shard) takeFreeTurnLocked() bool {
	m := &s.mu
	if m.owned || m.wanted || m.closed || m.blocking > 0 || len(m.control) > 0 || len(m.ingests) > 0 || len(s.pending) > 0 {
		return false
	}
	m.owned = true
	return true
}

// takeTurn takes the turn for the loop, and waits for it.
func (s *Shard) takeTurn() {
	s.mu.Lock()
	for s.mu.owned {
		s.mu.wanted = true
		s.mu.Unlock()
		<-s.turn
		s.mu.Lock()
	}
	s.mu.owned, s.mu.wanted = true, false
	s.mu.Unlock()
}

// endTurn gives the turn back, and has the loop take what is left.
func (s *Shard) endTurn() {
	s.mu.Lock()
	s.mu.owned = false
	wanted := s.mu.wanted
	left := len(s.pending) > 0 || len(s.mu.jobs) > 0 || len(s.mu.control) > 0 || len(s.mu.ingests) > 0
	s.mu.Unlock()
	switch {
	case wanted:
		poke(s.turn)
	case left:
		poke(s.wake)
	default:
		return
	}
	netpoll.Wake()
}
