package primary

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/slottable"
	"github.com/understudy-kv/understudy/wire"
)

// Server serves shards to replicas. All methods may be called from any goroutine.
type Server struct {
	opts   ServerOptions
	log    hclog.Logger
	start  time.Time // of the monotonic clock that slots are judged by
	ports  []*port
	window atomic.Int64 // the reconnect window, nanoseconds

	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // of every goroutine but the makers of snapshots

	mu struct {
		sync.Mutex
		table    *slottable.Table
		sessions map[slottable.Session]*session
		waiters  []*waiter
	}
}

// port is one shard's listener and what belongs to it.
type port struct {
	Shard
	listener  net.Listener
	pending   pending
	snapshots snapshots
	rate      rate
	past      past

	mu struct {
		sync.Mutex
		fullSyncs map[string]uint64
		resumes   uint64
		rewinds   uint64
		refusals  map[string]uint64
	}
}

// minPending is the least number of handshakes that a port has room for, however few replicas it may serve.
const minPending = 4

// Refusals that are no codes of the protocol, as status counts them.
const (
	refusedGarbage = "garbage" // closed without a HELLO: another protocol, silence, a port scan
	refusedCrowded = "crowded" // closed because too many connections had not said HELLO
)

func (p *port) refused(code string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.refusals[code]++
}

// NewServer takes up what slots and snapshots an earlier process left, and starts serving. On an error the listeners
// are the caller's to close; otherwise Close does.
func NewServer(o ServerOptions) (*Server, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	s := &Server{opts: o, log: o.Logger, start: time.Now()}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.window.Store(int64(o.ReconnectWindow))
	s.mu.sessions = make(map[slottable.Session]*session)
	s.mu.table = slottable.New(len(o.Shards), slottable.Limits{Live: o.MaxReplicas, Slots: slotsPerReplica * o.MaxReplicas})
	s.loadSlots()
	for i, shard := range o.Shards {
		p := &port{Shard: shard, listener: o.Listeners[i]}
		p.pending.max = max(minPending, o.MaxReplicas)
		p.mu.fullSyncs, p.mu.refusals = make(map[string]uint64), make(map[string]uint64)
		p.snapshots = snapshots{shard: shard, fs: o.FS, dir: o.FS.PathJoin(shard.Dir(), "snapshots"), log: s.log.With("shard", i), now: s.now, ctx: s.ctx}
		if err := p.snapshots.reload(func(id wire.ID) bool { return s.uses(i, id) }); err != nil {
			s.cancel(err)
			return nil, fmt.Errorf("primary: snapshots of shard %d: %w", i, err)
		}
		s.ports = append(s.ports, p)
		s.present(p)
		shard.SetRetention(func() (uint64, bool) { return s.floor(p) })
	}
	for _, p := range s.ports {
		// One goroutine a port accepts connections. It is ended by the listener's Close; Server.Close waits for it.
		s.wg.Go(func() { s.accept(p) })
	}
	// The keeper reaps slots, removes snapshots and saves slots.json, once a second. Close ends it and waits.
	s.wg.Go(s.keep)
	return s, nil
}

// now is the time of the server's monotonic clock.
func (s *Server) now() time.Duration { return time.Since(s.start) }

// SetReconnectWindow changes how long detached slots are kept, for those already detached too.
func (s *Server) SetReconnectWindow(d time.Duration) { s.window.Store(int64(d)) }

// ReconnectWindow is how long detached slots are kept.
func (s *Server) ReconnectWindow() time.Duration { return time.Duration(s.window.Load()) }

// DropSlot forgets a detached replica's slots on every shard and returns how many there were. The error is
// slottable.ErrNoSlot's kind or a *slottable.AttachedError.
func (s *Server) DropSlot(replica wire.ID) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.table.Drop(replica)
}

// present tells the table which history the shard is in, so that no ack of another one counts, and no log is kept for one.
func (s *Server) present(p *port) {
	l := p.Lineage()
	if len(l) == 0 {
		return
	}
	s.mu.Lock()
	gone := s.mu.table.SetLineage(p.ID(), l)
	s.mu.Unlock()
	for _, slot := range gone {
		s.log.Info("slot dropped: the history of its replica is none of this node's any more", "shard", slot.Shard, "replica", slot.Replica.String(),
			"generation", slot.Generation, "offset", slot.Need, "address", slot.Address)
	}
}

// Changed tells that the node's role or path, whether its shards may be of two histories, or a shard's lineage is another one now. When it
// returns, no ack of another generation counts in WaitAcked, and the sessions that were welcomed with another lineage or path, or all of them
// if it is mixed, are being ended: their replicas dial again at once, and resume. It waits for no peer.
func (s *Server) Changed() {
	for _, p := range s.ports {
		s.present(p)
	}
	s.mu.Lock()
	sessions := slices.Collect(maps.Values(s.mu.sessions))
	following := s.opts.Following()
	var given []*waiter
	if following {
		given, s.mu.waiters = s.mu.waiters, nil
	}
	s.mu.Unlock()
	for _, w := range given {
		close(w.done) // nobody waits for acks on a replica; what was waited for may be of a history that ended here
	}
	for _, c := range sessions {
		if !c.current() {
			c.end(errRole)
		}
	}
}

// floor is the shard's retention: the lowest offset that a slot or a snapshot in use needs.
func (s *Server) floor(p *port) (uint64, bool) {
	a, anyA := p.snapshots.floor()
	s.mu.Lock()
	b, anyB := s.mu.table.Floor(p.ID())
	s.mu.Unlock()
	switch {
	case anyA && anyB:
		return min(a, b), true
	case anyA:
		return a, true
	default:
		return b, anyB
	}
}

func (s *Server) uses(shard int, snapshot wire.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.table.Uses(shard, snapshot)
}

// accept takes connections until the listener is closed. An error that may pass, as when there are no file descriptors
// left, is waited out: a port that stopped listening would be noticed by nobody.
func (s *Server) accept(p *port) {
	const longest = time.Second
	wait := 5 * time.Millisecond
	for {
		conn, err := p.listener.Accept()
		if err == nil {
			wait = 5 * time.Millisecond
			// One goroutine a connection serves it, and ends with it; Server.Close closes the connection and waits.
			s.wg.Go(func() { s.serve(p, conn) })
			continue
		}
		if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		s.log.Error("a replication port cannot accept connections", "shard", p.ID(), "error", err, "retry_in", wait)
		select {
		case <-time.After(wait):
		case <-s.ctx.Done():
			return
		}
		wait = min(2*wait, longest)
	}
}

// Close ends every session with a stated reason, waits for all goroutines, and saves the slots. The shards stay open.
func (s *Server) Close() error {
	s.cancel(errShutdown)
	var errs []error
	for _, p := range s.ports {
		if err := p.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
		p.pending.closeAll()
	}
	s.wg.Wait()
	for _, p := range s.ports {
		p.snapshots.wg.Wait()
	}
	return errors.Join(append(errs, s.saveSlots())...)
}

// Counters are how sessions of a shard began or were refused, since the server was made.
type Counters struct {
	FullSyncs map[string]uint64 // by reason
	Resumes   uint64
	Rewinds   uint64            // rejoins by difference
	Refusals  map[string]uint64 // by code; "garbage" and "crowded" are connections that never said HELLO
}

// Counters returns a shard's.
func (s *Server) Counters(shard int) Counters {
	p := s.ports[shard]
	p.mu.Lock()
	defer p.mu.Unlock()
	return Counters{FullSyncs: maps.Clone(p.mu.fullSyncs), Resumes: p.mu.resumes, Rewinds: p.mu.rewinds, Refusals: maps.Clone(p.mu.refusals)}
}
