package primary

import (
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/internal/netpoll/netpolltest"
	"github.com/understudy-kv/understudy/wire"
)

// adopted counts connections: every second one is lent, so that the tests see both.
var adopted atomic.Int64

func adoptSome(c net.Conn) net.Conn {
	p, ok := c.(*pipe)
	if !ok || adopted.Add(1)%2 == 0 {
		return c
	}
	return &netpolltest.Pipe{Conn: p}
}

// Who publishes sends what is published, all of it and in order, also where the connection takes it in pieces; a heartbeat stands
// between two frames; and acks are heard while the reading is lent.
func TestThePublisherSends(t *testing.T) {
	for _, most := range []int{0, 1, 50} {
		synctest.Test(t, func(t *testing.T) {
			var conn *netpolltest.Pipe
			adopt := func(c net.Conn) net.Conn {
				conn = &netpolltest.Pipe{Conn: c, Most: most}
				return conn
			}
			s := newStage(t, 1, backlog.Options{}, ServerOptions{Adopt: adopt})
			p := s.resume(0, 1, 0)
			p.heartbeat()
			p.ack(0, 0, 0)
			const n = 300
			// The writer, which ends with what it has to write.
			go func() {
				for i := range n {
					time.Sleep(10 * time.Millisecond)
					if i%3 == 0 { // an ask may leave in pieces, too, and what is published comes behind it
						s.server.Ask([]uint64{uint64(i + 1)})
					}
					s.shards[0].write(1, 40)
				}
			}()
			beats, asks := 0, 0
			for next := uint64(0); next < n; {
				switch f := p.next(); f.Kind {
				case wire.KindMutations:
					if f.First != next {
						t.Fatalf("a frame from %d, want %d", f.First, next)
					}
					next = f.Next()
					p.ack(next, next, next)
				case wire.KindHeartbeat:
					beats++
				case wire.KindAsk:
					asks++
				default:
					t.Fatalf("a %s frame", f.Kind)
				}
			}
			synctest.Wait()
			if state, applied := s.slot(0); state == slotDetached || applied != n {
				t.Fatalf("slot is %s at %d, want %d acked", state, applied, n)
			}
			// Mostly: where a heartbeat is being sent the feeder goes on.
			each := 40
			if most == 1 {
				each = 1
			}
			if tried := conn.Tried.Load(); tried < int64(n*each/2) {
				t.Fatalf("the publisher has sent %d bytes", tried)
			}
			if asks < n/6 || asks > n/3 {
				t.Fatalf("%d asks came of %d", asks, n/3)
			}
			if beats < 2 {
				t.Fatalf("%d heartbeats in 3 s", beats)
			}
		})
	}
}

// While a snapshot is sent nobody is asked; what was asked for meanwhile leaves once the stream has begun.
func TestAskWaitsForTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{Adopt: func(c net.Conn) net.Conn { return &netpolltest.Pipe{Conn: c} }})
		s.shards[0].write(20, 100)
		p := s.dial(0)
		st := s.beginSync(p, 1, wire.ID{})
		s.shards[0].write(5, 100)
		synctest.Wait() // the feeder has written what was to be written, and waits for a FETCH
		s.server.Ask([]uint64{25})
		for _, c := range s.server.mu.sessions { // nothing else is going on
			if c.asked.Load() != 25 || c.asking != 0 {
				t.Fatalf("asked for %d of %d before the stream has begun", c.asking, c.asked.Load())
			}
		}
		p.fetch(st, everything)
		p.finish(st)
		if a, err := wire.ParseAsk(p.until(wire.KindAsk).Payload); err != nil || a != 25 {
			t.Fatalf("asked for %d, want 25 (%v)", a, err)
		}
	})
}

// A wrong ack ends the session, although others came behind it at once, and those count for nothing.
func TestAckBackwardsWhileLent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{Adopt: func(c net.Conn) net.Conn { return &netpolltest.Pipe{Conn: c} }})
		s.shards[0].write(6, 40)
		p := s.resume(0, 1, 0)
		p.frames(0, 6)
		time.Sleep(time.Second / 2) // now it is lent
		var b []byte
		for _, at := range []uint64{5, 3, 6} {
			b = wire.AppendAck(b, wire.Ack{Received: at, Applied: at, Durable: at})
		}
		p.send(b)
		if r := p.ending(); r.Code != wire.CodeProtocol {
			t.Fatalf("ended with %q: %s", r.Code, r.Text)
		}
		synctest.Wait()
		if state, applied := s.slot(0); state != slotDetached || applied != 5 {
			t.Fatalf("slot is %s at %d, want 5 acked", state, applied)
		}
	})
}

// What is held leaves when it is announced, or as soon as somebody waits for its ack.
func TestHeldIsSent(t *testing.T) {
	for name, announce := range map[string]func(s *stage){
		"announced": func(s *stage) { s.shards[0].log.Announce() },
		"asked for": func(s *stage) { s.server.Ask([]uint64{9}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var conn *netpolltest.Pipe
				s := newStage(t, 1, backlog.Options{}, ServerOptions{Adopt: func(c net.Conn) net.Conn { conn = &netpolltest.Pipe{Conn: c}; return conn }})
				s.shards[0].write(3, 40)
				p := s.resume(0, 1, 0)
				p.frames(0, 3)
				synctest.Wait()
				before := conn.Tried.Load()
				s.shards[0].hold(6, 40)
				synctest.Wait()
				if n := conn.Tried.Load(); n != before {
					t.Fatalf("%d bytes left that are held", n-before)
				}
				// Ends once it has told the feeder, or has sent in its place, for which the replica below reads.
				go announce(s)
				p.frames(3, 9)
				synctest.Wait()
				if conn.Tried.Load() == before {
					t.Error("it was not who announces that has sent it")
				}
			})
		})
	}
}

// Who announces has not got the shard's turn, so the shard's generation may have changed: nothing of the new one leaves.
func TestAnnouncedLeavesItsLineage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{Adopt: func(c net.Conn) net.Conn { return &netpolltest.Pipe{Conn: c} }})
		f := s.shards[0]
		f.write(3, 40)
		p := s.resume(0, 1, 0)
		p.frames(0, 3)
		synctest.Wait()
		f.hold(2, 40)
		f.begin('b')
		f.hold(2, 40)
		// Ends once it has told the feeder, or has sent in its place, for which the replica below reads.
		go f.log.Announce()
		for {
			frame, err := p.try()
			if err != nil {
				t.Fatalf("ended without a word: %v", err)
			}
			switch frame.Kind {
			case wire.KindMutations:
				if frame.Next() > 5 {
					t.Fatalf("a frame up to %d left; the generation ended at 5", frame.Next())
				}
			case wire.KindBye:
				if r, err := wire.ParseRefusal(frame.Kind, frame.Payload); err != nil || r.Code != wire.CodeRole {
					t.Fatalf("ended by %+v (%v)", r, err)
				}
				return
			}
		}
	})
}
