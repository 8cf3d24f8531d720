package primary

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/internal/node"
	"github.com/understudy-kv/understudy/internal/ports"
	"github.com/understudy-kv/understudy/slottable"
	"github.com/understudy-kv/understudy/wire"
)

// A promotion in the middle of a stream, which nobody tells the server of: not one frame of the new generation leaves in a
// session that was welcomed without it (frames carry no generation, so the replica would file it under the old one), nor a
// heartbeat with an offset of it. The replica resumes with the new lineage (pitfalls 6, 28).
func TestNoFrameLeavesItsLineage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{})
		f := s.shards[0]
		f.write(20, 100<<10)
		p := s.resume(0, 1, 0)
		p.frames(0, 2)
		synctest.Wait() // the feeder is stuck in a write
		f.begin('b')
		f.write(20, 100)
		next := uint64(2)
		for {
			frame, err := p.try()
			if err != nil {
				break // in the middle of an old frame, which there is no BYE in
			}
			if frame.Kind == wire.KindBye {
				r, err := wire.ParseRefusal(frame.Kind, frame.Payload)
				if err != nil || r.Code != wire.CodeRole {
					t.Fatalf("ended by %+v (%v)", r, err)
				}
				break
			}
			if frame.Kind == wire.KindMutations {
				next = frame.Next()
			}
			if next > 20 {
				t.Fatalf("a frame up to %d left; the generation ended at 20", next)
			}
		}
		p.close()
		again := s.dial(0)
		again.send(wire.AppendHello(nil, hello(1, at(next))))
		if w := again.welcome(wire.KindResume); w.Position != at(next) || !w.Lineage.Equal(f.Lineage()) {
			t.Fatalf("resumes at %s on %s", w.Position, w.Lineage)
		}
		again.frames(next, 40)
		if n := s.server.Counters(0).FullSyncs; len(n) != 0 {
			t.Fatalf("full syncs %v", n)
		}
	})
}

// A session that has nothing to send notices at its next heartbeat, which would tell an offset of a generation that the
// replica does not know.
func TestNoHeartbeatLeavesItsLineage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{})
		f := s.shards[0]
		f.write(3, 10)
		p := s.resume(0, 1, 3)
		p.heartbeat()
		f.begin('b')
		for {
			frame := p.next()
			if frame.Kind == wire.KindBye {
				return
			}
			h, err := wire.ParseHeartbeat(frame.Payload)
			if err != nil {
				t.Fatal(err)
			}
			t.Fatalf("a heartbeat at %s", h.Position)
		}
	})
}

// A node that has taken another history over, as by a full sync, keeps no log for replicas of the one before, which it could not
// resume; those that are of this one keep their slots, however often it changes its generation.
func TestSlotsOfAnotherHistoryGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{ReconnectWindow: time.Hour})
		s.shards[0].write(5, 10)
		p := s.resume(0, 1, 2)
		p.conn.Close()
		synctest.Wait()
		s.shards[0].begin(7)
		s.server.Changed()
		if floor, any := s.shards[0].floor(); floor != 2 || !any {
			t.Fatalf("behind a promotion the log is kept from %d on (%v)", floor, any)
		}
		s.shards[0].replace(wire.Lineage{{Generation: wire.Generation{9}, First: 1}})
		s.server.Changed()
		if floor, any := s.shards[0].floor(); any {
			t.Fatalf("in another history the log is kept from %d on", floor)
		}
		if n := len(s.server.Status(0).Slots); n != 0 {
			t.Fatalf("%d slots", n)
		}
	})
}

// Changed ends at once the sessions that were welcomed with another lineage or path, and no others; acks of the generation
// before are void from then on, and satisfy no WAIT (pitfalls 11, 35).
func TestChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := []wire.ID{{0xAA}}
		following := false
		s := newStage(t, 2, backlog.Options{}, ServerOptions{
			Path: func() []wire.ID { return path }, Following: func() bool { return following },
		})
		for _, f := range s.shards {
			f.write(10, 10)
		}
		a, b := s.resume(0, 1, 0), s.resume(1, 1, 0)
		for _, p := range []*peer{a, b} {
			p.heartbeat()
			p.frames(0, 10)
			p.ack(10, 10, 10)
		}
		synctest.Wait()
		count := func() int { return s.server.WaitAcked(context.Background(), []uint64{10, 10}, 0, slottable.Applied) }
		if count() != 1 {
			t.Fatalf("%d replicas have acked", count())
		}
		s.server.Changed() // nothing has
		go a.keep(10)

		s.shards[1].begin('b')
		s.server.Changed()
		if count() != 0 {
			t.Fatalf("%d replicas counted by an ack of another generation", count())
		}
		began := time.Now()
		if r := b.ending(); r.Code != wire.CodeRole || time.Since(began) != 0 {
			t.Fatalf("ended by %+v after %v", r, time.Since(began))
		}
		synctest.Wait()
		if state, _ := s.slot(0); state != slotOnline {
			t.Fatalf("the session of the other shard is %s", state)
		}

		// A WAIT that is under way when the node becomes a replica returns what it has.
		waited := make(chan int)
		go func() { waited <- s.server.WaitAcked(context.Background(), []uint64{10, 10}, 1, slottable.Applied) }()
		synctest.Wait()
		path, following = []wire.ID{{7}, {0xAA}}, true
		s.server.Changed()
		if n := <-waited; n != 0 {
			t.Fatalf("WAIT returned %d", n)
		}
		if n := s.server.WaitAcked(context.Background(), []uint64{10, 10}, 1, slottable.Applied); n != 0 {
			t.Fatalf("WAIT on a replica returned %d", n)
		}
		synctest.Wait()
		if state, _ := s.slot(0); state != slotDetached {
			t.Fatalf("a session that was welcomed with another path is %s", state)
		}
	})
}

// Over IPv6, where the machine has it.
func TestOverIPv6(t *testing.T) {
	probe, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	probe.Close()
	base, err := ports.Free("::1", 1)
	if err != nil {
		t.Fatal(err)
	}
	listeners, err := node.Listen("::1", base, 1)
	if err != nil {
		t.Fatal(err)
	}
	s := newStage(t, 1, backlog.Options{}, ServerOptions{})
	s.end()
	s.shards[0].write(3, 10)
	server, err := NewServer(ServerOptions{FS: s.fs, Node: wire.ID{1}, Listeners: listeners, Shards: []Shard{s.shards[0]}})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dialTCP(listeners[0].Addr())
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, conn: conn, link: newLink(conn)}
	p.send(wire.AppendHello(nil, hello(1, at(0))))
	p.welcome(wire.KindResume)
	p.frames(0, 3)
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	p.close()
}
