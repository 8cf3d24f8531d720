package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/understudy-kv/understudy/internal/status"
	"github.com/understudy-kv/understudy/internal/store"
)

// failoverError is a text of Redis's, full stop included.
type failoverError string

func (e failoverError) Error() string { return string(e) }

// Errors of a handover that does not begin, or of an ABORT.
const (
	ErrFailoverReplica  failoverError = "FAILOVER is not valid when server is a replica."
	ErrFailoverRunning  failoverError = "FAILOVER already in progress."
	ErrNoFailover       failoverError = "No failover in progress."
	ErrNoReplicas       failoverError = "FAILOVER requires connected replicas."
	ErrNotAReplica      failoverError = "FAILOVER target HOST and PORT is not a replica."
	ErrReplicaNotOnline failoverError = "FAILOVER target replica is not online."
)

var (
	errAborted = errors.New("aborted")
	errNoHold  = errors.New("writes cannot be held: the node has a state machine of the program's own")
)

const (
	drainLook   = 2 * time.Millisecond  // how often the target's acks are looked at
	refusedWait = 10 * time.Millisecond // before a target that was not ready is asked again
)

// FailoverRequest is a planned handover.
type FailoverRequest struct {
	// Target is the replica that takes over: its announced address for clients, or its replication ports', "host:port".
	// Empty: the first one that has everything.
	Target string
	// Timeout is how long writes are held at most while the target catches up. 0: without end.
	Timeout time.Duration
	// Force hands over when the time is up, even if the target has not got everything. What it lacks becomes surplus here.
	Force bool
}

// failover is a handover that runs.
type failover struct {
	request FailoverRequest
	cancel  context.CancelCauseFunc
	began   time.Time
	release func() // lets held writes go on; may be called again
}

// candidate is a replica that could take over.
type candidate struct {
	base    string // its replication ports
	drained bool   // every shard of it has applied everything; shard by shard, never by a sum (pitfall 10)
}

// Failover begins to hand the role over, and returns. Writes are held, not refused, until the target has everything; then
// it is promoted, this node follows it, and held writes are answered -READONLY. If the target does not get there in time,
// or refuses, everything is as before. Status tells how it went.
func (n *Node) Failover(_ context.Context, r FailoverRequest) error {
	if n.keyspace == nil {
		return errNoHold
	}
	if n.opts.Follow == nil {
		return fmt.Errorf("%w: it could not follow the target", ErrOneRole)
	}
	n.roleMu.Lock()
	defer n.roleMu.Unlock()
	if n.isClosed() {
		return ErrClosed
	}
	if n.Role() != store.Primary {
		return ErrFailoverReplica
	}
	if _, err := n.target(r.Target, nil); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	f := &failover{request: r, cancel: cancel, began: time.Now()}
	n.mu.Lock()
	if n.mu.running != nil {
		n.mu.Unlock()
		cancel(nil)
		return ErrFailoverRunning
	}
	n.mu.running = f
	n.mu.failover = &status.Failover{State: status.FailoverWaiting, Target: r.Target}
	n.mu.Unlock()
	f.release = n.keyspace.HoldWrites()
	// The handover owns the hold on writes. It ends by itself, by AbortFailover or by Close, which waits for it.
	n.done.Go(func() {
		defer cancel(nil)
		n.handOver(ctx, f)
	})
	return nil
}

// AbortFailover ends a handover. If the target was asked already, it is asked once more, to give it up. A target that has
// taken over is followed; otherwise, and if it does not answer, this node becomes a primary again, in generations of its own.
func (n *Node) AbortFailover() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.running == nil {
		return ErrNoFailover
	}
	n.mu.running.cancel(errAborted)
	return nil
}

// target finds who is to take over; among those that have everything one that is not to be avoided, if there is one.
func (n *Node) target(address string, avoid map[string]bool) (candidate, error) {
	server := n.server.Load()
	if server == nil {
		return candidate{}, ErrNoReplicas
	}
	type progress struct {
		online, drained int
		base            string
		named           bool
	}
	found := map[string]*progress{}
	var order []string
	for i := range server.shards {
		s := server.Status(i)
		for _, slot := range s.Slots {
			p := found[slot.Replica]
			if p == nil {
				p = &progress{base: slot.AnnounceBase}
				found[slot.Replica], order = p, append(order, slot.Replica)
			}
			p.named = p.named || slot.Address == address || slot.AnnounceBase == address
			if slot.State == "online" && slot.AnnounceBase != "" {
				p.online++
				if slot.Applied == s.Log.Published {
					p.drained++
				}
			}
		}
	}
	any, other := false, candidate{}
	for _, id := range order {
		p := found[id]
		online := p.online == len(server.shards)
		any = any || online
		if address != "" && !p.named {
			continue
		}
		c := candidate{base: p.base, drained: p.drained == len(server.shards)}
		switch {
		case address != "" && !online:
			return candidate{}, ErrReplicaNotOnline
		case address != "" || online && c.drained && !avoid[c.base]:
			return c, nil
		case online && c.drained:
			other = c
		}
	}
	switch {
	case address != "":
		return candidate{}, ErrNotAReplica
	case !any:
		return candidate{}, ErrNoReplicas
	}
	return other, nil // nobody, while none of them has everything
}

// handOver is a handover from the hold on writes to its end.
func (n *Node) handOver(ctx context.Context, f *failover) {
	q, h, err := n.prepare(ctx, f)
	if err == nil {
		n.note(func(s *status.Failover) { s.State, s.Target = status.FailoverInProgress, h.Target })
		err = n.takeOver(ctx, f, q, h)
		q.close()
	}
	n.endHandover(f, h.Target, err)
}

// endHandover lets held writes go on and reports how it went.
func (n *Node) endHandover(f *failover, target string, err error) {
	hold := time.Since(f.began)
	f.release()
	result := "done"
	if err != nil {
		result = err.Error()
		n.opts.Logger.Warn("the handover did not happen", "target", target, "error", err, "hold", hold)
	} else {
		n.opts.Logger.Info("handed over", "target", target, "hold", hold)
	}
	n.mu.Lock()
	n.mu.running = nil
	n.mu.failover.State, n.mu.failover.Result = status.FailoverNone, result
	if n.mu.failover.Hold == 0 {
		n.mu.failover.Hold = float64(hold.Microseconds()) / 1000
	}
	n.mu.Unlock()
}

func (n *Node) note(change func(*status.Failover)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(n.mu.failover)
}

// prepare waits until no write is under way, the target has everything, and it has said that it would take over: acks tell
// where a target was, not whether it can still be reached, and with no write in flight there is none missing. Until then
// nothing has changed, here or there.
func (n *Node) prepare(ctx context.Context, f *failover) (*inquiry, store.Handover, error) {
	limited, until := ctx, time.Time{}
	if f.request.Timeout > 0 {
		until = f.began.Add(f.request.Timeout)
		var stop context.CancelFunc
		limited, stop = context.WithDeadline(ctx, until)
		defer stop()
	}
	if err := n.keyspace.Quiesce(limited); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, store.Handover{}, err
	}
	silent := map[string]bool{}
	var refused time.Time // the first time
	var unheard error     // why the last one that was asked did not answer
	for {
		target, err := n.drain(ctx, limited, f, silent)
		if err != nil {
			if unheard != nil && ctx.Err() == nil && limited.Err() != nil {
				err = fmt.Errorf("%w; it was asked before, and did not answer: %w", err, unheard)
			}
			return nil, store.Handover{Target: target.base}, err
		}
		h, q := n.newHandover(target.base, f.request.Force), &inquiry{node: n, target: target.base, limit: until}
		ready, text, err := n.probe(ctx, limited, q, h)
		if err == nil && refused.IsZero() {
			refused = time.Now()
		}
		wait := refusedWait
		switch {
		case ready:
			return q, h, nil
		case ctx.Err() != nil:
			return nil, h, context.Cause(ctx)
		case err == nil && (limited.Err() != nil || time.Since(refused) > takeoverTry):
			return nil, h, fmt.Errorf("the target %s", text)
		case limited.Err() != nil:
			return nil, h, fmt.Errorf("the target did not answer within %s: %w", f.request.Timeout, err)
		case err != nil:
			wait, unheard = takeoverWait, err
			silent[h.Target] = true // another one may have everything, too
			n.opts.Logger.Warn("the target of the handover does not answer", "target", h.Target, "error", err, "retry_in", wait)
		}
		// A target that has just attached may not have stored yet what it was welcomed with, so a refusal may be one of the moment.
		select {
		case <-time.After(wait):
		case <-limited.Done():
		case <-n.quit:
			return nil, h, ErrClosed
		}
	}
}

// probe asks the target once. A forced handover begins when the time is up, so the question has a time of its own.
func (n *Node) probe(ctx, limited context.Context, q *inquiry, h store.Handover) (bool, string, error) {
	if limited.Err() == nil {
		ctx = limited
	}
	once, cancel := context.WithTimeout(ctx, takeoverTry)
	defer cancel()
	return q.probe(once, n.takeover(h))
}

// drain waits until a target has everything; one that was silent is taken only where there is no other.
func (n *Node) drain(ctx, limited context.Context, f *failover, silent map[string]bool) (candidate, error) {
	tick := time.NewTicker(drainLook)
	defer tick.Stop()
	for {
		c, err := n.target(f.request.Target, silent)
		if err == nil && c.drained {
			return c, nil
		}
		select {
		case <-tick.C:
		case <-n.quit:
			return candidate{}, ErrClosed
		case <-limited.Done():
			switch {
			case ctx.Err() != nil:
				return candidate{}, context.Cause(ctx)
			case f.request.Force && c.base != "":
				return c, nil
			}
			return candidate{}, fmt.Errorf("the target had not applied everything after %s: raise TIMEOUT, or look at its lag", f.request.Timeout)
		}
	}
}
