package node_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/eventually"
	"github.com/understudy-kv/understudy/internal/node"
	"github.com/understudy-kv/understudy/internal/status"
	"github.com/understudy-kv/understudy/internal/store"
	"github.com/understudy-kv/understudy/wire"
)

// over waits for the end of the handover and returns how it went.
func (m *member) over() status.Failover {
	m.t.Helper()
	eventually.True(m.t, patience, "the handover is over", func() bool {
		f := m.Status().Failover
		return f != nil && f.State == status.FailoverNone
	})
	return *m.Status().Failover
}

// A handover under load: every write that was answered is at the new primary, every other one was answered -READONLY, and
// nobody syncs in full.
func TestFailover(t *testing.T) {
	p := openNode(t, "p", "")
	a, b := openNode(t, "a", p.ReplicationAddr()), openNode(t, "b", p.ReplicationAddr())
	a.ready()
	b.ready()
	var acked, refused atomic.Int64
	done := make(chan error, 4)
	for w := range 4 {
		// Four writers, waited for below; each ends when the old primary tells it to go elsewhere.
		go func() {
			for i := 0; ; i++ {
				_, err := p.Do(t.Context(), "SET", fmt.Sprint("w", w, "-", i), "v")
				if err != nil {
					refused.Add(1)
					if !strings.HasPrefix(err.Error(), "READONLY") {
						done <- err
						return
					}
					done <- nil
					return
				}
				acked.Add(1)
			}
		}()
	}
	eventually.True(t, patience, "there is load", func() bool { return acked.Load() > 500 })
	if err := p.Failover(t.Context(), node.FailoverRequest{Target: a.ReplicationAddr()}); err != nil {
		t.Fatal(err)
	}
	if f := p.over(); f.Result != "done" || f.Hold <= 0 || f.Target != a.ReplicationAddr() {
		t.Fatalf("%+v", f)
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if a.Role() != store.Primary || p.Role() != store.Replica || p.Primary() != a.ReplicationAddr() {
		t.Fatalf("a %s and a %s that follows %s", a.Role(), p.Role(), p.Primary())
	}
	if got := a.do("DBSIZE"); got != acked.Load() {
		t.Errorf("%v keys at the new primary, %d writes were answered", got, acked.Load())
	}
	a.do("SET", "after", "v")
	b.follow(a.ReplicationAddr())
	same(t, a, p, b)
	for _, m := range []*member{p, a, b} {
		if n := m.syncs(); n != 0 {
			t.Errorf("%d full syncs", n)
		}
	}
	if refused.Load() != 4 {
		t.Errorf("%d writes were refused, want the last one of each writer", refused.Load())
	}
}

// What cannot be handed over is said at once; what does not come about in time leaves everything as it was.
func TestFailoverThatDoesNotHappen(t *testing.T) {
	p := openNode(t, "p", "")
	if err := p.Failover(t.Context(), node.FailoverRequest{}); !errors.Is(err, node.ErrNoReplicas) {
		t.Fatalf("%v", err)
	}
	if err := p.AbortFailover(); !errors.Is(err, node.ErrNoFailover) {
		t.Fatalf("%v", err)
	}
	a := openNode(t, "a", p.ReplicationAddr())
	a.ready()
	if err := p.Failover(t.Context(), node.FailoverRequest{Target: "nobody:1"}); !errors.Is(err, node.ErrNotAReplica) {
		t.Fatalf("%v", err)
	}
	if err := a.Failover(t.Context(), node.FailoverRequest{}); !errors.Is(err, node.ErrFailoverReplica) {
		t.Fatalf("%v", err)
	}
	p.do("SET", "before", "v")
	same(t, p, a)
	before := p.Status().Shards
	// The replica applies nothing for a while, so it has not got everything.
	for _, s := range a.Shards() {
		s.PauseIngest(time.Minute)
	}
	p.do("SET", "k", "v")
	if err := p.Failover(t.Context(), node.FailoverRequest{Timeout: 300 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	if err := p.Failover(t.Context(), node.FailoverRequest{}); !errors.Is(err, node.ErrFailoverRunning) {
		t.Fatalf("a second handover gave %v", err)
	}
	if _, err := p.Follow(t.Context(), a.ReplicationAddr()); !errors.Is(err, node.ErrFailoverRunning) {
		t.Fatalf("REPLICAOF in a handover gave %v", err)
	}
	began := time.Now()
	p.do("SET", "held", "v") // held, not refused
	if took := time.Since(began); took < 100*time.Millisecond {
		t.Errorf("a write was answered after %s, in the middle of the hold", took)
	}
	if f := p.over(); f.Result == "done" || f.Hold < 250 || p.Role() != store.Primary {
		t.Fatalf("%+v", f)
	}
	// And one that is aborted.
	if err := p.Failover(t.Context(), node.FailoverRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := p.AbortFailover(); err != nil {
		t.Fatal(err)
	}
	if f := p.over(); !strings.Contains(f.Result, "aborted") {
		t.Fatalf("%+v", f)
	}
	p.do("SET", "after", "v")
	for i, s := range p.Status().Shards {
		if len(s.Lineage) != len(before[i].Lineage) {
			t.Errorf("shard %d began a generation: %v", i, s.Lineage)
		}
	}
	for _, s := range a.Shards() {
		s.PauseIngest(0)
	}
	same(t, p, a)
}

// A target that was there and cannot be reached any more, while nothing is under way, does not get the role, though its acks
// say that it has everything: when the time is up everything is as before, without a generation begun. One that answers again
// in time does.
func TestFailoverToATargetThatIsCutOff(t *testing.T) {
	for name, heals := range map[string]bool{"for good": false, "for a moment": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := openNode(t, "p", "")
			post := &mail{}
			p.close()
			p.opts.Dial = post.dial
			p.open()
			a := openNode(t, "a", p.ReplicationAddr())
			a.ready()
			p.do("SET", "before", "v")
			same(t, p, a)
			attached(t, p, a)
			before := p.Status().Shards
			post.cut(true)
			limit := 500 * time.Millisecond
			if heals {
				limit = patience
			}
			if err := p.Failover(t.Context(), node.FailoverRequest{Target: a.ReplicationAddr(), Timeout: limit}); err != nil {
				t.Fatal(err)
			}
			if heals {
				eventually.True(t, patience, "the target is not reached", func() bool { return post.losses() > 0 })
				post.cut(false)
				if f := p.over(); f.Result != "done" || a.Role() != store.Primary {
					t.Fatalf("%+v, and the target is a %s", f, a.Role())
				}
				a.do("SET", "after", "v")
				same(t, a, p)
				return
			}
			began := time.Now()
			p.do("SET", "held", "v")
			if took := time.Since(began); took < 200*time.Millisecond {
				t.Errorf("a write was answered after %s, in the middle of the hold", took)
			}
			f := p.over()
			if !strings.Contains(f.Result, "did not answer") || f.Hold < 450 || f.Hold > 5000 || p.Role() != store.Primary {
				t.Fatalf("%+v, and the node is a %s", f, p.Role())
			}
			for i, s := range p.Status().Shards {
				if len(s.Lineage) != len(before[i].Lineage) {
					t.Errorf("shard %d began a generation: %v", i, s.Lineage)
				}
			}
			same(t, p, a)
			if n := a.syncs(); n != 0 {
				t.Errorf("%d full syncs", n)
			}
		})
	}
}

// attached waits until the node counts the other one as a replica that has everything.
func attached(t *testing.T, p, a *member) {
	t.Helper()
	eventually.True(t, patience, "the target has acknowledged everything", func() bool {
		for _, s := range p.Status().Shards {
			if len(s.Slots) != 1 || s.Slots[0].State != "online" || s.Slots[0].Applied != s.Log.Published || s.Slots[0].AnnounceBase != a.ReplicationAddr() {
				return false
			}
		}
		return true
	})
}

// Without a target named, one that is silent is passed over for another one that has everything.
func TestFailoverPassesOverTheSilent(t *testing.T) {
	p := openNode(t, "p", "")
	post := &mail{}
	p.close()
	p.opts.Dial = post.dial
	p.open()
	a, b := openNode(t, "a", p.ReplicationAddr()), openNode(t, "b", p.ReplicationAddr())
	a.ready()
	b.ready()
	p.do("SET", "before", "v")
	same(t, p, a, b)
	post.cutTo(a.ReplicationAddr())
	eventually.True(t, patience, "both are attached", func() bool {
		for _, s := range p.Status().Shards {
			if len(s.Slots) != 2 || s.Slots[0].State != "online" || s.Slots[1].State != "online" {
				return false
			}
		}
		return true
	})
	if err := p.Failover(t.Context(), node.FailoverRequest{Timeout: patience}); err != nil {
		t.Fatal(err)
	}
	if f := p.over(); f.Result != "done" || f.Target != b.ReplicationAddr() || b.Role() != store.Primary {
		t.Fatalf("%+v", f)
	}
}

// Once the role is given up the question has to be answered, but only if the target can have got it: where no connection took
// all of it, the role is taken back when the time is up.
func TestFailoverThatCannotBeAsked(t *testing.T) {
	p := openNode(t, "p", "")
	post := &mail{}
	p.close()
	p.opts.Dial = post.dial
	p.open()
	a := openNode(t, "a", p.ReplicationAddr())
	a.ready()
	p.do("SET", "before", "v")
	same(t, p, a)
	attached(t, p, a)
	post.refuse()
	if err := p.Failover(t.Context(), node.FailoverRequest{Target: a.ReplicationAddr(), Timeout: 700 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, patience, "the question is refused", func() bool { return post.losses() > 0 })
	if p.Role() != store.Replica {
		t.Errorf("in the middle of the handover the node is a %s", p.Role())
	}
	f := p.over()
	if !strings.Contains(f.Result, "could not be sent") || f.Hold < 650 || f.Hold > 5000 || p.Role() != store.Primary {
		t.Fatalf("%+v, and the node is a %s", f, p.Role())
	}
	p.do("SET", "after", "v")
	same(t, p, a)
	if n := a.syncs(); n != 0 {
		t.Errorf("%d full syncs", n)
	}
}

// A target that ends in the middle leaves a node that does not write until an operator says so: the target may be a primary.
func TestFailoverToATargetThatEnds(t *testing.T) {
	p := openNode(t, "p", "")
	a := openNode(t, "a", p.ReplicationAddr())
	a.ready()
	p.do("SET", "before", "v")
	same(t, p, a)
	// What listens in the target's place says that it is ready, takes the question and does not answer.
	deaf, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan struct{})
	// It ends with the listener, and is waited for.
	go func() {
		defer close(heard)
		for {
			c, err := deaf.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			b := make([]byte, 4096)
			n, _ := c.Read(b)
			if f, err := wire.ParseFrame(b[:n]); err == nil {
				if q, err := wire.ParseTakeover(f.Payload); err == nil && q.Probe {
					c.Write(wire.AppendTakeoverReply(nil, wire.TakeoverReply{ID: q.ID, Outcome: wire.OutcomeReady})) //nolint:errcheck // asked again
				}
			}
		}
	}()
	defer func() { deaf.Close(); <-heard }()
	_, port, _ := net.SplitHostPort(deaf.Addr().String())
	a.close()
	a.opts.AnnounceHost = "127.0.0.1"
	if _, err := fmt.Sscan(port, &a.opts.AnnouncePortBase); err != nil {
		t.Fatal(err)
	}
	a.open()
	eventually.True(t, patience, "the target is attached", func() bool {
		return a.Follower().Streaming() && p.Failover(t.Context(), node.FailoverRequest{Target: deaf.Addr().String()}) == nil
	})
	eventually.True(t, patience, "the target is asked", func() bool {
		return p.Status().Failover.State == status.FailoverInProgress && p.Role() == store.Replica
	})
	if err := p.AbortFailover(); err != nil {
		t.Fatal(err)
	}
	if f := p.over(); !strings.Contains(f.Result, "aborted") || p.Role() != store.Primary {
		t.Fatalf("%+v, and the node is a %s", f, p.Role())
	}
	p.do("SET", "after", "v")
	same(t, p, a)
	if n := a.syncs(); n != 0 {
		t.Errorf("%d full syncs", n)
	}
}
