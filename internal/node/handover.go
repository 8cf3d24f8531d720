package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/understudy-kv/understudy/internal/status"
	"github.com/understudy-kv/understudy/internal/store"
	"github.com/understudy-kv/understudy/wire"
)

const (
	restoreWait = time.Second
	holdLimit   = 10 * time.Second // writes are held for an answer no longer; then they are told -READONLY
)

// newHandover describes the handover to a target. Writes are held.
func (n *Node) newHandover(target string, force bool) store.Handover {
	h := store.Handover{Target: target}
	rand.Read(h.ID[:]) // never fails: crypto/rand ends the process instead
	if !force {
		h.Positions = n.positions()
	}
	return h
}

// takeOver gives the role up, and then asks the target, which has said that it is ready, to take it. From the moment that
// the role is given up, durably, only the target's answer or an operator's ABORT tells who has it, so until then nobody
// writes here, restarts included. A target that cannot have been asked has no answer to give.
func (n *Node) takeOver(ctx context.Context, f *failover, q *inquiry, h store.Handover) error {
	if ctx.Err() != nil {
		return context.Cause(ctx) // as the target said that it is ready
	}
	n.roleMu.Lock()
	err := n.abdicate(h)
	n.roleMu.Unlock()
	if err != nil {
		return errors.Join(err, n.restore(ctx))
	}
	return n.settle(ctx, f, q, h)
}

// abdicate needs roleMu: the node is a replica that follows nobody yet.
func (n *Node) abdicate(h store.Handover) error {
	if n.isClosed() {
		return ErrClosed
	}
	if err := n.data.store.HandOver(h); err != nil {
		return err
	}
	n.keyspace.SetReadOnly(true)
	n.mu.Lock()
	n.mu.role, n.mu.primary = store.Replica, h.Target
	n.mu.Unlock()
	for _, s := range n.Shards() {
		if err := s.Demote(); err != nil {
			return fmt.Errorf("shard %d: %w", s.ID(), err)
		}
	}
	return nil
}

// resumeHandover goes on with a handover that the process before did not live to see the end of. Nothing is held: the node
// is a replica that follows nobody, and what the target says makes it a primary again or a replica of the target.
func (n *Node) resumeHandover(h store.Handover) error {
	if n.opts.Follow == nil {
		return n.follow(h.Target) // says why not
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	f := &failover{request: FailoverRequest{Target: h.Target}, cancel: cancel, began: time.Now(), release: func() {}}
	n.mu.Lock()
	n.mu.running = f
	n.mu.failover = &status.Failover{State: status.FailoverInProgress, Target: h.Target}
	n.mu.Unlock()
	n.opts.Logger.Warn("a handover was under way when the node stopped; asking what became of it", "target", h.Target, "handover", h.ID)
	// Open starts it. It ends when it is known who has the role, by AbortFailover or by Close, which waits for it.
	n.done.Go(func() {
		defer cancel(nil)
		q := &inquiry{node: n, target: h.Target, sent: true} // by the process before, for all that is known
		n.endHandover(f, h.Target, n.settle(ctx, f, q, h))
	})
	return nil
}

// settle asks the target until it is known whether it has the role, and acts on it. A handover that is not to be is taken
// back at the target before this node writes again: a request that is still on its way must find it void.
func (n *Node) settle(ctx context.Context, f *failover, q *inquiry, h store.Handover) error {
	held := time.AfterFunc(holdLimit, func() {
		n.note(func(s *status.Failover) { s.Hold = float64(time.Since(f.began).Microseconds()) / 1000 })
		f.release()
	})
	defer held.Stop()
	t := n.takeover(h)
	reply, err := q.untilAnswered(ctx, t)
	if err == nil && reply.Outcome == wire.OutcomeRefused {
		err = fmt.Errorf("the target %s: %s", reply.Outcome, reply.Text)
		t.Cancel = true
		if again, unanswered := q.untilAnswered(ctx, t); unanswered == nil {
			reply = again
		}
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if ctx.Err() != nil && q.sent {
		t.Cancel = true
		once, cancel := context.WithTimeout(context.WithoutCancel(ctx), takeoverTry)
		defer cancel()
		if last, unanswered := q.ask(once, t); unanswered == nil {
			reply = last
		}
	}
	switch {
	case n.isClosed():
		return ErrClosed // the next start asks again
	case reply.Outcome == wire.OutcomeDone:
		return n.handedOver(h)
	case err == nil:
		err = fmt.Errorf("the target %s: %s", reply.Outcome, reply.Text)
	}
	return errors.Join(err, n.restore(ctx))
}

// handedOver follows the target, which has taken over.
func (n *Node) handedOver(h store.Handover) error {
	n.roleMu.Lock()
	defer n.roleMu.Unlock()
	if n.isClosed() {
		return nil
	}
	if err := n.data.store.SetRole(store.Replica, h.Target); err != nil {
		n.opts.Logger.Warn("the end of the handover was not recorded; the next start asks again", "error", err)
	}
	return n.follow(h.Target)
}

// restore makes the node a primary again. While that cannot be recorded it tries again, until it is told to stop.
func (n *Node) restore(ctx context.Context) error {
	for {
		err := n.restoreOnce()
		if err == nil || n.Role() == store.Primary || ctx.Err() != nil {
			return err
		}
		n.opts.Logger.Error("the primary's role cannot be taken back", "error", err, "retry_in", restoreWait)
		select {
		case <-time.After(restoreWait):
		case <-ctx.Done():
		case <-n.quit:
			return err
		}
	}
}

func (n *Node) restoreOnce() error {
	n.roleMu.Lock()
	defer n.roleMu.Unlock()
	if n.isClosed() {
		return nil // the next start asks
	}
	record := func() error { return n.data.store.SetRole(store.Primary, "") }
	if n.Role() == store.Primary {
		// It could not give the role up; but the record of that may have reached the disk.
		return errors.Join(record(), n.completePromotion())
	}
	return n.promote(true, record)
}
