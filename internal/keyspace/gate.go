package keyspace

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/understudy-kv/understudy/internal/shard"
)

// The gate is where writes wait while the primary's role is handed over. It is looked at on the shards' loops, not when a
// pipeline is planned: a write passes it on its way into a group, or by an exclusive section once all of its shards are
// parked. So a job that is submitted to a shard after the gate was closed is a barrier: what runs behind it sees the gate
// closed, and what passed before is committed when the barrier is. Nobody counts writers, and an open gate costs a look at
// the set for each run of a part. Whoever finds it closed leaves the loop and waits on the session's goroutine.

// Waiter is a Hook that knows when a session that waits at the gate must give up.
type Waiter interface {
	// Hold waits until released is closed, and returns nil, or until the connection is to end, and returns why. The
	// replies to the commands before have been sent.
	Hold(released <-chan struct{}) error
}

// gate is one closing of it. Closings may overlap: the last to be released opens it.
type gate struct {
	released chan struct{}
	closings int // guarded by Keyspace.mu
}

// HoldWrites has commands and transactions that write wait, and with them what the same connection sent behind them;
// other reads go on. The reaper pauses too, so that once Quiesce has returned, no shard writes. release, which may be
// called again, lets them go on: with -READONLY if the keyspace refuses writes by then.
func (k *Keyspace) HoldWrites() (release func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	next := *k.set.Load()
	if next.gate == nil {
		next.gate = &gate{released: make(chan struct{})}
		k.set.Store(&next)
	}
	g := next.gate
	g.closings++
	return sync.OnceFunc(func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if g.closings--; g.closings > 0 {
			return
		}
		next := *k.set.Load()
		next.gate = nil
		k.set.Store(&next)
		close(g.released)
	})
}

// Quiesce returns when every write that passed the gate before HoldWrites is committed; none can pass it until it is
// released. It is an error if a shard takes no writes, or if ctx ends before.
func (k *Keyspace) Quiesce(ctx context.Context) error {
	shards := k.Shards()
	barriers := make([]*call, len(shards))
	for i, on := range shards {
		barriers[i] = &call{on: on, result: make(chan outcome, 1), run: func(*shard.Group) bool { return true }}
		if err := on.Submit(barriers[i]); err != nil {
			return fmt.Errorf("shard %d: %w", i, err)
		}
	}
	for i, b := range barriers {
		select {
		case o := <-b.result:
			err := o.err
			if err == nil {
				err = shards[i].Err()
			}
			if err != nil {
				return fmt.Errorf("shard %d: %w", i, err)
			}
		case <-ctx.Done():
			return fmt.Errorf("shard %d is still busy with what was sent before: %w", i, ctx.Err())
		}
	}
	return nil
}

// errGivenUp ends a session that nobody waits for at the gate.
var errGivenUp = errors.New("the connection ended while its write was held")

// await waits at the gate, after sending the replies that there are.
func (s *Session) await(sink Sink) error {
	g := s.ks.set.Load().gate
	if g == nil {
		return nil
	}
	if err := sink.Flush(); err != nil {
		return err
	}
	if s.hold != nil {
		return s.hold(g.released)
	}
	<-g.released
	return nil
}

// holdUntil is how a session without a connection waits.
func holdUntil(ctx context.Context) func(<-chan struct{}) error {
	return func(released <-chan struct{}) error {
		select {
		case <-released:
			return nil
		case <-ctx.Done():
			return errors.Join(errGivenUp, ctx.Err())
		}
	}
}

// heldBack reports whether the next reply in order is that of a write that waits at the gate.
func (s *Session) heldBack() bool {
	e := &s.plan[s.at]
	if !e.split {
		return e.part.held
	}
	for _, p := range s.shares[e.from:e.to] {
		if p.taken == p.done && p.held {
			return true
		}
	}
	return false
}
