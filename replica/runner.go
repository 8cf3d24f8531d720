package replica

import (
	"context"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/understudy-kv/understudy/wire"
)

// runner is the life of one shard's link: it dials, serves a session, waits, and dials again, for ever. One goroutine
// drives it.
type runner struct {
	f      *Follower
	id     int
	cancel context.CancelFunc
	ended  chan struct{} // closed when drive has returned
	// again is closed when it is worth dialling before the wait is over: another link of the node reaches the primary, which
	// this one's last dial did not. nil behind anything but a failed dial. It is drive's.
	again <-chan struct{}

	mu struct {
		sync.Mutex
		link    *Link
		shard   Shard // nil until the shard count is known
		session *session
	}
}

func (f *Follower) newRunner(id, shards int, shard Shard) *runner {
	r := &runner{f: f, id: id, ended: make(chan struct{})}
	o := f.opts
	r.mu.shard = shard
	r.mu.link = NewLink(LinkOptions{
		Shard: uint32(id), Shards: uint32(shards), Learns: id == 0, Format: o.Format, AcceptEmptyPrimary: o.AcceptEmptyPrimary,
		Silence: o.Silence, Backoff: o.Backoff, Jitter: o.Jitter, Node: o.Node,
	})
	return r
}

// drive is the link's goroutine. It returns once ctx has ended and the session with it.
func (r *runner) drive(ctx context.Context) {
	defer close(r.ended)
	var acts []Action
	ev := Event{Kind: EventWake, Err: r.fault()}
	for {
		acts = r.step(ev, acts[:0])
		for _, a := range acts {
			switch a.Kind {
			case ActionLog:
				r.log(a)
			case ActionDial:
				ev = r.connect(ctx)
			case ActionWait:
				ev = r.wait(ctx, a.Wait)
			case ActionQuit:
				return
			}
		}
	}
}

// connect dials and, if that worked, serves the session to its end.
func (r *runner) connect(ctx context.Context) Event {
	again := r.f.reached() // before the dial: none is missed
	r.again = nil
	o := r.f.opts
	dialing, cancel := context.WithTimeout(ctx, o.Silence)
	conn, err := o.Dial(dialing, r.address())
	cancel()
	if err != nil {
		if ctx.Err() != nil {
			return r.f.stopEvent()
		}
		r.again = again
		return Event{Kind: EventDialFailed, Err: err}
	}
	r.f.reach()
	return Event{Kind: EventEnded, Err: r.run(ctx, o.Adopt(conn))}
}

func (r *runner) wait(ctx context.Context, d time.Duration) Event {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return Event{Kind: EventWake, Err: r.fault()}
	case <-r.again:
		return Event{Kind: EventWake, Err: r.fault()}
	case <-ctx.Done():
		return r.f.stopEvent()
	}
}

// address is the shard's port at the primary: base + id.
func (r *runner) address() string {
	return net.JoinHostPort(r.f.host, strconv.Itoa(r.f.base+r.id))
}

// step steps the link at the present time and appends what is to be done.
func (r *runner) step(ev Event, acts []Action) []Action {
	ev.At = r.f.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	return append(acts, r.mu.link.Step(ev)...)
}

func (r *runner) figures() Figures {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.link.Figures(r.f.now())
}

// streams reports whether the link is up and streams.
func (r *runner) streams() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.link.state == StateStreaming
}

func (r *runner) shard() Shard {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.shard
}

func (r *runner) setShard(s Shard) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.shard = s
}

func (r *runner) attach(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.session = s
}

func (r *runner) fault() error {
	if s := r.shard(); s != nil {
		return s.Err()
	}
	return nil
}

func (r *runner) durable() uint64 {
	if s := r.shard(); s != nil {
		return s.Durable()
	}
	return 0
}

func (r *runner) log(a Action) {
	r.f.opts.Logger.Log(a.Level, a.Text, append([]any{"shard", r.id}, a.Args...)...)
}

// hello says who this replica is and what the shard has.
func (r *runner) hello(a Action) wire.Hello {
	o := r.f.opts
	var capabilities uint64
	if a.Rewinds {
		capabilities |= wire.CapDifference
	}
	return wire.Hello{
		Version: wire.Version, Capabilities: capabilities, Settles: a.Settles, Replica: o.ReplicaID, Nonce: o.Nonce, Node: o.Node, Announce: o.Announce, AnnounceBase: o.AnnounceBase(), Cluster: o.Cluster,
		User: o.User, Password: o.Password, Shard: uint32(r.id), Shards: r.f.claimedShards(a.Position), Format: o.Format,
		Position: a.Position, Lineage: a.Lineage.Until(a.Position.Offset), Snapshot: a.Snapshot,
	}
}

// stop ends the link and waits for it.
func (r *runner) stop() {
	r.cancel()
	<-r.ended
}
