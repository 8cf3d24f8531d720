package primary

import (
	"context"
	"slices"

	"github.com/understudy-kv/understudy/internal/netpoll"
	"github.com/understudy-kv/understudy/slottable"
	"github.com/understudy-kv/understudy/wire"
)

// waiter is one WAIT. It is woken by the ack that satisfies it, and by no other.
type waiter struct {
	offsets []uint64
	n       int
	level   slottable.Level
	done    chan struct{}
}

// WaitAcked returns how many distinct replicas have acked, at the level and in the present generation, everything
// before offsets[i] on every shard i, as soon as that is at least n or ctx ends. An offset of 0 asks nothing of its
// shard. Only live sessions count. On a node that follows another one nobody waits: it has no writes of its own.
func (s *Server) WaitAcked(ctx context.Context, offsets []uint64, n int, level slottable.Level) int {
	s.mu.Lock()
	count := s.mu.table.Count(offsets, level)
	if count >= n || ctx.Err() != nil || s.opts.Following() {
		s.mu.Unlock()
		return count
	}
	w := &waiter{offsets: offsets, n: n, level: level, done: make(chan struct{})}
	s.mu.waiters = append(s.mu.waiters, w)
	s.mu.Unlock()
	s.Ask(offsets)

	select {
	case <-w.done:
	case <-ctx.Done():
	case <-s.ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.mu.waiters, w); i >= 0 {
		s.mu.waiters = slices.Delete(s.mu.waiters, i, i+1)
	}
	return s.mu.table.Count(offsets, level)
}

// Ask has every replica ack as soon as it has applied everything before offsets[i] on shard i, instead of now and then.
func (s *Server) Ask(offsets []uint64) {
	s.mu.Lock()
	sessions := make([]*session, 0, len(s.mu.sessions))
	for _, c := range s.mu.sessions {
		sessions = append(sessions, c)
	}
	s.mu.Unlock()
	for _, c := range sessions {
		if i := c.port.ID(); i < len(offsets) && c.rewinding == nil {
			c.ask(offsets[i])
		}
	}
}

// ack takes a session's ack and wakes whom it satisfies. sent is how far the stream was handed to the connection. It reports whether the
// session is in a full sync still.
func (s *Server) ack(session slottable.Session, sent uint64, a wire.Ack) (syncing bool, err error) {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mu.table.Sent(session, sent); err != nil {
		return false, err
	}
	if err := s.mu.table.Ack(session, a, now); err != nil {
		return false, err
	}
	s.mu.waiters = slices.DeleteFunc(s.mu.waiters, func(w *waiter) bool {
		if s.mu.table.Count(w.offsets, w.level) < w.n {
			return false
		}
		close(w.done)
		netpoll.Wake()
		return true
	})
	return s.mu.table.Syncing(session), nil
}
