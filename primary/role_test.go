package primary

import (
	"context"
	"maps"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/slottable"
	"github.com/understudy-kv/understudy/wire"
)

// promote begins a generation where the shard is, as shard.Promote does: the lineage is stored before anything of it is
// written.
func (f *fake) promote(g byte) wire.Lineage {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lineage = f.lineage.Begin(wire.Generation{g}, f.log.Published())
	return f.lineage
}

// No frame of a new generation leaves in a session that was welcomed with the lineage before, whether or not anybody tells
// the server: frames carry no generation, so the replica would file them under the old one, and resume later where its
// data is not. It is told to dial again, and resumes.
func TestSessionsArePinnedToTheirLineage(t *testing.T) {
	for _, told := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t, 1, backlog.Options{}, ServerOptions{})
			defer s.end()
			s.shards[0].write(5, 10)
			p := s.resume(0, 1, 0)
			p.frames(0, 5)
			next := s.shards[0].promote('b')
			if told {
				s.server.Changed()
			}
			s.shards[0].write(3, 10)
			for {
				f, err := p.try()
				if err != nil {
					t.Fatalf("the session ended without a reason: %v", err)
				}
				if f.Kind == wire.KindMutations {
					t.Fatalf("a frame at %d of the new generation came in the old session", f.First)
				}
				if f.Kind == wire.KindBye {
					if r, err := wire.ParseRefusal(f.Kind, f.Payload); err != nil || r.Code != wire.CodeRole {
						t.Fatalf("the session ended with %+v, %v", r, err)
					}
					break
				}
			}
			p.close()
			synctest.Wait()
			again := s.dial(0)
			h := hello(1, at(5))
			h.Shards = 1
			again.send(wire.AppendHello(nil, h))
			if w := again.welcome(wire.KindResume); !w.Lineage.Equal(next) {
				t.Fatalf("resumed on %s, want %s", w.Lineage, next)
			}
			again.frames(5, 8)
		})
	}
}

// A session that was welcomed with another path is cut: what is below must learn that a loop has come about, or gone.
func TestSessionsArePinnedToTheirPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := []wire.ID{{0xAA}}
		s := newStage(t, 1, backlog.Options{}, ServerOptions{Path: func() []wire.ID { return path }})
		defer s.end()
		p := s.resume(0, 1, 0)
		p.heartbeat()
		s.server.Changed() // nothing has
		p.heartbeat()
		path = []wire.ID{{0xBB}, {0xAA}}
		s.server.Changed()
		if r := p.ending(); r.Code != wire.CodeRole {
			t.Fatalf("ended with %+v", r)
		}
		p.close()
		synctest.Wait()
		if w := s.resumeAgain(1); len(w.Path) != 2 || w.Path[0] != path[0] {
			t.Fatalf("welcomed with the path %v", w.Path)
		}
		up := s.dial(0)
		h := hello(9, at(0))
		h.Node, h.Shards = wire.ID{0xBB}, 1
		up.send(wire.AppendHello(nil, h))
		if r := up.ending(); r.Code != wire.CodeLoop {
			t.Fatalf("the node above was answered %+v", r)
		}
		// Who only asks before it follows counts as nobody who was refused.
		before := s.server.Status(0).Refusals
		for node, want := range map[byte]wire.Code{0xBB: wire.CodeLoop, 0xCC: wire.CodeShard} {
			asks := s.dial(0)
			h.Node, h.Shard = wire.ID{node}, math.MaxUint32
			asks.send(wire.AppendHello(nil, h))
			if r := asks.ending(); r.Code != want {
				t.Fatalf("a question was answered %+v", r)
			}
		}
		synctest.Wait()
		if after := s.server.Status(0).Refusals; !maps.Equal(before, after) || before["loop"] != 1 {
			t.Fatalf("refusals were %v before two questions, and are %v", before, after)
		}
		h.Node, h.Shard = wire.ID{0xCC}, 7
		asks := s.dial(0)
		asks.send(wire.AppendHello(nil, h))
		asks.ending()
		synctest.Wait()
		if after := s.server.Status(0).Refusals; after["shard"] != 1 {
			t.Fatalf("a replica that asked for shard 7 counts as %v", after)
		}
	})
}

// resumeAgain says HELLO at offset 0 of shard 0 and returns the answer.
func (s *stage) resumeAgain(replica byte) wire.Welcome {
	s.t.Helper()
	p := s.dial(0)
	h := hello(replica, at(0))
	h.Shards = 1
	p.send(wire.AppendHello(nil, h))
	return p.welcome(wire.KindResume)
}

// A node whose shards may be of two histories serves nobody: its sessions end before a shard of it gets another state, and there are none
// until all of them are of one history.
func TestNobodyIsServedByAMixedNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mixed := false
		s := newStage(t, 2, backlog.Options{}, ServerOptions{Mixed: func() bool { return mixed }, Following: func() bool { return true }})
		defer s.end()
		a, b := s.resume(0, 1, 0), s.resume(1, 1, 0)
		s.server.Changed() // nothing has
		for _, p := range []*peer{a, b} {
			p.heartbeat()
		}
		mixed = true
		s.server.Changed()
		for shard, p := range []*peer{a, b} {
			if r := p.ending(); r.Code != wire.CodeRole {
				t.Fatalf("shard %d ended with %+v", shard, r)
			}
			p.close()
			again := s.dial(shard)
			h := hello(1, at(0))
			h.Shards, h.Shard = 2, uint32(shard)
			again.send(wire.AppendHello(nil, h))
			if r := again.ending(); r.Code != wire.CodeLoading || !strings.Contains(r.Text, "some shards of this node have gone over to its primary's data") {
				t.Fatalf("shard %d was answered %+v", shard, r)
			}
			again.close()
		}
		synctest.Wait()
		mixed = false
		s.server.Changed()
		s.resume(0, 1, 0).heartbeat()
	})
}

// Pitfall 11: an ack of the generation before does not satisfy a WAIT of the new one, and a WAIT that waits when the node
// ceases to be a primary ends.
func TestWaitAcrossAChangeOfRole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		following := false
		s := newStage(t, 1, backlog.Options{}, ServerOptions{Following: func() bool { return following }})
		defer s.end()
		s.shards[0].write(5, 10)
		p := s.resume(0, 1, 0)
		p.frames(0, 5)
		p.ack(5, 5, 5)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if n := s.server.WaitAcked(ctx, []uint64{5}, 1, slottable.Applied); n != 1 {
			t.Fatalf("%d replicas", n)
		}
		s.shards[0].promote('b')
		s.server.Changed()
		if n := s.server.WaitAcked(ctx, []uint64{5}, 0, slottable.Applied); n != 0 {
			t.Fatalf("%d acks of the generation before were counted", n)
		}
		done := make(chan int, 1)
		// It waits for a replica that does not come, and ends with the change below.
		go func() { done <- s.server.WaitAcked(ctx, []uint64{5}, 1, slottable.Applied) }()
		synctest.Wait()
		following = true
		s.server.Changed()
		synctest.Wait()
		select {
		case n := <-done:
			if n != 0 {
				t.Fatalf("%d replicas", n)
			}
		default:
			t.Fatal("a WAIT goes on on a node that is no primary any more")
		}
	})
}

// A replica counts for min-replicas-to-write while it is live on every shard and has applied what was there so long ago,
// not because its acks keep coming.
func TestFreshReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 2, backlog.Options{}, ServerOptions{})
		defer s.end()
		peers := []*peer{s.resume(0, 1, 0)}
		peers[0].ack(0, 0, 0)
		synctest.Wait()
		if n := s.server.FreshReplicas(5 * time.Second); n != 0 {
			t.Fatalf("%d replicas, and the only one is on one of two shards", n)
		}
		peers = append(peers, s.resume(1, 1, 0))
		for _, p := range peers {
			p.ack(0, 0, 0)
			// It acks for ever what it has applied, which is nothing; ended by the end of its session.
			go func() {
				for {
					if f, err := p.try(); err != nil || f.Kind == wire.KindBye {
						return
					} else if f.Kind == wire.KindHeartbeat {
						h, err := wire.ParseHeartbeat(f.Payload)
						if err != nil {
							return
						}
						if _, err := p.conn.Write(wire.AppendAck(nil, wire.Ack{Received: h.Sent})); err != nil {
							return
						}
					}
				}
			}()
		}
		synctest.Wait()
		if n := s.server.FreshReplicas(5 * time.Second); n != 1 {
			t.Fatalf("%d fresh replicas, want 1", n)
		}
		s.shards[1].write(3, 10)
		<-time.After(3 * time.Second)
		if n := s.server.FreshReplicas(5 * time.Second); n != 1 {
			t.Fatalf("%d fresh replicas 3 s behind, want 1", n)
		}
		<-time.After(4 * time.Second)
		if n := s.server.FreshReplicas(5 * time.Second); n != 0 {
			t.Fatalf("%d fresh replicas 7 s behind, want none", n)
		}
		for _, p := range peers {
			p.close()
		}
		synctest.Wait()
	})
}
