package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/understudy-kv/understudy/internal/status"
	"github.com/understudy-kv/understudy/internal/store"
	"github.com/understudy-kv/understudy/wire"
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
	drainLook    = 2 * time.Millisecond // how often the target's acks are looked at
	takeoverTry  = 2 * time.Second      // for one question to the target
	takeoverWait = 200 * time.Millisecond
	holdLimit    = 10 * time.Second // writes are held for an answer no longer; then they are told -READONLY
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
	if _, err := n.target(r.Target); err != nil {
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

// AbortFailover ends a handover. One that has asked the target already cannot know whether the target took over: this node
// becomes a primary again, in generations of its own.
func (n *Node) AbortFailover() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.running == nil {
		return ErrNoFailover
	}
	n.mu.running.cancel(errAborted)
	return nil
}

// target finds who is to take over.
func (n *Node) target(address string) (candidate, error) {
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
	any := false
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
		case address != "" || online && c.drained:
			return c, nil
		}
	}
	switch {
	case address != "":
		return candidate{}, ErrNotAReplica
	case !any:
		return candidate{}, ErrNoReplicas
	}
	return candidate{}, nil // none of them has everything yet
}

// handOver is a handover from the hold on writes to its end.
func (n *Node) handOver(ctx context.Context, f *failover) {
	target, err := n.drain(ctx, f)
	if err == nil {
		n.note(func(s *status.Failover) { s.State, s.Target = status.FailoverInProgress, target.base })
		err = n.takeOver(ctx, f, target)
	}
	hold := time.Since(f.began)
	f.release()
	result := "done"
	if err != nil {
		result = err.Error()
		n.opts.Logger.Warn("the handover did not happen", "target", f.request.Target, "error", err, "hold", hold)
	} else {
		n.opts.Logger.Info("handed over", "target", target.base, "hold", hold)
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

// drain waits until no write is under way and the target has everything.
func (n *Node) drain(ctx context.Context, f *failover) (candidate, error) {
	limited := ctx
	if f.request.Timeout > 0 {
		var stop context.CancelFunc
		limited, stop = context.WithTimeout(ctx, f.request.Timeout)
		defer stop()
	}
	if err := n.keyspace.Quiesce(limited); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return candidate{}, err
	}
	tick := time.NewTicker(drainLook)
	defer tick.Stop()
	for {
		c, err := n.target(f.request.Target)
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

// takeOver gives the role up, and then asks the target to take it. From the first question on only its answer, or an
// operator's ABORT, tells whether it did, so until then nobody writes here.
func (n *Node) takeOver(ctx context.Context, f *failover, target candidate) error {
	n.roleMu.Lock()
	err := n.abdicate(target.base)
	n.roleMu.Unlock()
	if err != nil {
		return errors.Join(err, n.restore())
	}
	t := wire.Takeover{
		Node: n.ID(), Cluster: n.opts.Cluster, User: n.opts.User, Password: n.opts.Password,
		Announce: n.opts.Announce, AnnounceBase: n.ReplicationAddr(),
	}
	rand.Read(t.ID[:]) // never fails: crypto/rand ends the process instead
	if !f.request.Force {
		for _, s := range n.Shards() {
			t.Positions = append(t.Positions, s.Position())
		}
	}
	reply, err := n.askUntilAnswered(ctx, f, target.base, t)
	switch {
	case err != nil:
		return errors.Join(err, n.restore())
	case reply.Outcome != wire.OutcomeDone:
		return errors.Join(fmt.Errorf("the target %s: %s", reply.Outcome, reply.Text), n.restore())
	}
	n.roleMu.Lock()
	defer n.roleMu.Unlock()
	if n.isClosed() {
		return nil
	}
	return n.follow(target.base)
}

// abdicate needs roleMu: the node is a replica that follows nobody yet.
func (n *Node) abdicate(address string) error {
	if n.isClosed() {
		return ErrClosed
	}
	if err := n.data.store.SetRole(store.Replica, address); err != nil {
		return err
	}
	n.keyspace.SetReadOnly(true)
	n.mu.Lock()
	n.mu.role, n.mu.primary = store.Replica, address
	n.mu.Unlock()
	for _, s := range n.Shards() {
		if err := s.Demote(); err != nil {
			return fmt.Errorf("shard %d: %w", s.ID(), err)
		}
	}
	return nil
}

// restore makes the node a primary again.
func (n *Node) restore() error {
	n.roleMu.Lock()
	defer n.roleMu.Unlock()
	if n.isClosed() {
		return nil // the next start follows; the target's history tells
	}
	if n.Role() == store.Primary && n.Primary() == "" {
		return n.completePromotion()
	}
	return n.promote(true, func() error { return n.data.store.SetRole(store.Primary, "") })
}

// askUntilAnswered asks again and again: the request carries an id, so asking twice is asking once.
func (n *Node) askUntilAnswered(ctx context.Context, f *failover, address string, t wire.Takeover) (wire.TakeoverReply, error) {
	held := time.NewTimer(holdLimit)
	defer held.Stop()
	for {
		reply, err := n.askTakeover(ctx, address, t)
		if err == nil {
			return reply, nil
		}
		n.opts.Logger.Warn("no answer about the handover", "target", address, "error", err, "retry_in", takeoverWait)
		select {
		case <-time.After(takeoverWait):
		case <-held.C:
			n.note(func(s *status.Failover) { s.Hold = float64(time.Since(f.began).Microseconds()) / 1000 })
			f.release()
		case <-n.quit:
			return reply, ErrClosed
		case <-ctx.Done():
			return reply, context.Cause(ctx)
		}
	}
}

// askTakeover asks once. No answer is an error; a refusal of the connection as a whole counts as one of the handover.
func (n *Node) askTakeover(ctx context.Context, address string, t wire.Takeover) (reply wire.TakeoverReply, err error) {
	ctx, cancel := context.WithTimeout(ctx, takeoverTry)
	defer cancel()
	f, err := n.exchange(ctx, address, wire.AppendTakeover(nil, t))
	switch {
	case err != nil:
		return reply, err
	case f.Kind == wire.KindTakeoverReply:
		reply, err = wire.ParseTakeoverReply(f.Payload)
		if err == nil && reply.ID != t.ID {
			err = fmt.Errorf("an answer about the handover %s, asked was about %s", reply.ID, t.ID)
		}
		return reply, err
	case f.Kind == wire.KindRefuse:
		r, err := wire.ParseRefusal(f.Kind, f.Payload)
		return wire.TakeoverReply{ID: t.ID, Outcome: wire.OutcomeRefused, Text: string(r.Code) + ": " + r.Text}, err
	}
	return reply, fmt.Errorf("answered by a %s frame", f.Kind)
}

// takenOver answers the primary that this node follows and that hands its role over.
func (n *Node) takenOver(_ context.Context, t wire.Takeover) wire.TakeoverReply {
	reply := wire.TakeoverReply{ID: t.ID, Outcome: wire.OutcomeRefused}
	if t.ID.IsZero() {
		reply.Text = "the handover has no id"
		return reply
	}
	n.roleMu.Lock()
	defer n.roleMu.Unlock()
	if last, void := n.data.store.Takeover(); last == t.ID {
		reply.Outcome = wire.OutcomeDone
		if void {
			reply.Outcome = wire.OutcomeVoid
		}
		return reply
	}
	if t.Cancel {
		if err := n.data.store.TakeOver(t.ID, true); err != nil {
			reply.Text = err.Error()
			return reply
		}
		reply.Outcome = wire.OutcomeVoid
		return reply
	}
	if err := n.mayTakeOver(t); err != nil {
		reply.Text = err.Error()
		return reply
	}
	if err := n.promote(true, func() error { return n.data.store.TakeOver(t.ID, false) }); err != nil && n.Role() != store.Primary {
		reply.Text = err.Error()
		return reply
	}
	for _, s := range n.Shards() {
		reply.Positions = append(reply.Positions, s.Position())
	}
	reply.Outcome = wire.OutcomeDone
	return reply
}

// mayTakeOver says why the handover cannot be accepted, or nil.
func (n *Node) mayTakeOver(t wire.Takeover) error {
	if n.Role() != store.Replica {
		return errors.New("this node is a primary already")
	}
	var parent wire.ID
	if f := n.Follower(); f != nil {
		if path := f.Path(); len(path) > 0 {
			parent = path[len(path)-1]
		}
	}
	if parent != t.Node {
		return fmt.Errorf("this node follows %s, not node %s", n.Primary(), t.Node)
	}
	if len(t.Positions) == 0 {
		return nil // forced
	}
	var have []wire.Position
	for _, s := range n.Shards() {
		have = append(have, s.Position())
	}
	if !slices.Equal(have, t.Positions) {
		return fmt.Errorf("this node is at %v, the handover is at %v", have, t.Positions)
	}
	return nil
}
