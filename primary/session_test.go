package primary

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/internal/node"
	"github.com/understudy-kv/understudy/wire"
)

func TestResumeStreamsAndCountsAcks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{})
		f := s.shards[0]
		f.write(10, 100)
		p := s.resume(0, 1, 4)

		// The first heartbeat comes at once and takes no offset (pitfall 4).
		if h := p.heartbeat(); h.Sent != 4 || h.Position != at(10) || h.Digest != 0 || h.Pending == 0 {
			t.Fatalf("first heartbeat %+v", h)
		}
		p.frames(4, 10)
		if n := s.server.WaitAcked(context.Background(), []uint64{10}, 0, 0); n != 0 {
			t.Fatalf("%d replicas counted: sent is not acked", n)
		}
		counted := make(chan int)
		go func() { counted <- s.server.WaitAcked(context.Background(), []uint64{10}, 1, 0) }()
		p.ack(10, 9, 8)
		synctest.Wait()
		select {
		case n := <-counted:
			t.Fatalf("WAIT returned %d before everything was applied", n)
		default:
		}
		p.ack(10, 10, 9)
		if n := <-counted; n != 1 {
			t.Fatalf("WAIT returned %d", n)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		go p.drain()
		if n := s.server.WaitAcked(ctx, []uint64{10}, 1, 1); n != 0 {
			t.Fatalf("WAITAOF returned %d, durable is 9", n)
		}
		if c := s.server.Counters(0); c.Resumes != 1 || len(c.FullSyncs) != 0 {
			t.Fatalf("counters %+v", c)
		}
		if floor, any := f.floor(); floor != 9 || !any {
			t.Fatalf("floor %d %v, want the durable ack", floor, any)
		}
	})
}

// TestWaitAsks: whoever waits has the replica asked for an ack, once an offset; where nobody waits nobody asks. Each second
// connection is lent.
func TestWaitAsks(t *testing.T) {
	for range 2 {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t, 1, backlog.Options{}, ServerOptions{})
			s.shards[0].write(10, 100)
			p := s.resume(0, 1, 4)
			p.heartbeat()
			p.frames(4, 10)
			p.ack(6, 6, 6)
			synctest.Wait()
			ask := func(want uint64) {
				t.Helper()
				f, err := p.try()
				if err != nil || f.Kind != wire.KindAsk {
					t.Fatalf("a %s frame came (%v), want an ask", f.Kind, err)
				}
				if got, err := wire.ParseAsk(f.Payload); err != nil || got != want {
					t.Fatalf("asked for %d, want %d (%v)", got, want, err)
				}
			}
			wait := func(offset uint64) chan int {
				counted := make(chan int, 1)
				// It ends with the ack that the test sends.
				go func() { counted <- s.server.WaitAcked(context.Background(), []uint64{offset}, 1, 0) }()
				return counted
			}
			if n := s.server.WaitAcked(context.Background(), []uint64{6}, 1, 0); n != 1 { // acked already: nobody is asked
				t.Fatalf("%d replicas counted", n)
			}
			first := wait(8)
			ask(8)
			again, less := wait(8), wait(7)
			synctest.Wait()
			last := wait(10)
			ask(10)
			p.ack(10, 10, 10)
			for _, c := range []chan int{first, again, less, last} {
				if n := <-c; n != 1 {
					t.Fatalf("WAIT returned %d", n)
				}
			}
		})
	}
}

// drain reads whatever comes, until the connection ends.
func (p *peer) drain() {
	for {
		if _, err := p.try(); err != nil {
			return
		}
	}
}

// keep reads whatever comes and answers heartbeats with an ack, as a replica at an offset does.
func (p *peer) keep(offset uint64) {
	ack := wire.AppendAck(nil, wire.Ack{Received: offset, Applied: offset, Durable: offset})
	for {
		f, err := p.try()
		if err != nil {
			return
		}
		if f.Kind == wire.KindHeartbeat {
			if _, err := p.conn.Write(ack); err != nil {
				return
			}
		}
	}
}

func TestHeartbeatsCarryTheDigest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{})
		s.shards[0].write(5, 10)
		p := s.resume(0, 1, 0)
		p.heartbeat()
		var digest wire.Digest
		for range 5 {
			digest = digest.Add(p.until(wire.KindMutations).CRC())
		}
		began := time.Now()
		h := p.heartbeat()
		if h.Digest != digest || h.Sent != 5 || h.Pending != 0 {
			t.Fatalf("heartbeat %+v, want digest %x", h, digest)
		}
		if d := time.Since(began); d != HeartbeatInterval {
			t.Fatalf("a heartbeat after %v", d)
		}
	})
}

// A replica that says nothing is detached after 9 s; its slot is kept for the window, to the second, and the log with
// it (pitfalls 32, 37).
func TestSilenceDetachesAndTheWindowReaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{ReconnectWindow: 20 * time.Second})
		s.shards[0].write(5, 10)
		p := s.resume(0, 1, 2)
		p.frames(2, 5)
		p.ack(5, 5, 5)
		began := time.Now()
		r := p.ending()
		if d := time.Since(began).Truncate(time.Microsecond); d != SilenceTimeout || r.Code != wire.CodeTimeout {
			t.Fatalf("ended after %v with %q: %s", d, r.Code, r.Text)
		}
		synctest.Wait()
		if n := s.nets[0].resets.Load(); n != 1 {
			t.Errorf("%d connections were reset: the end of one to a replica that does not answer would wait for that", n)
		}
		if state, applied := s.slot(0); state != slotDetached || applied != 5 {
			t.Fatalf("slot is %s at %d", state, applied)
		}
		time.Sleep(20*time.Second - time.Millisecond)
		synctest.Wait()
		if floor, any := s.shards[0].floor(); !any || floor != 5 {
			t.Fatalf("floor %d %v within the window", floor, any)
		}
		time.Sleep(keepEvery + time.Millisecond)
		synctest.Wait()
		if _, any := s.shards[0].floor(); any {
			t.Fatal("a reaped slot holds the log")
		}
		// Within the keep a resume still works.
		s.resume(0, 1, 5)
	})
}

// A peer that stops reading is noticed after 9 s without progress; one that reads slowly is left alone (pitfall 31).
func TestStuckWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{})
		s.shards[0].write(1, 300_000)
		p := s.resume(0, 1, 0)
		began := time.Now()
		acking := make(chan struct{})
		go func() { // alive, but deaf
			defer close(acking)
			for {
				if _, err := p.conn.Write(wire.AppendControl(nil, wire.KindKeepalive, nil)); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		<-acking
		if d := time.Since(began); d < WriteTimeout || d > WriteTimeout+2*byeTimeout {
			t.Fatalf("a stuck write was noticed after %v", d)
		}
		synctest.Wait()
		if state, _ := s.slot(0); state != slotDetached {
			t.Fatalf("slot is %s", state)
		}
	})
}

// A frame that takes a minute on a slow link passes, and no heartbeat stands inside it (pitfall 29).
func TestLongFrameOnASlowLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 600_000
		s := newStage(t, 1, backlog.Options{Memory: 64 << 10}, ServerOptions{})
		s.shards[0].write(1, size)
		p := s.resume(0, 1, 0)
		p.heartbeat()
		stop := make(chan struct{})
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Second):
					p.send(wire.AppendControl(nil, wire.KindKeepalive, nil))
				}
			}
		}()
		var got []byte
		piece := make([]byte, 10_000)
		for len(got) < size+wire.Overhead {
			p.conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			n, err := p.conn.Read(piece)
			if err != nil {
				t.Fatalf("after %d bytes: %v", len(got), err)
			}
			got = append(got, piece[:n]...)
			time.Sleep(time.Second)
		}
		close(stop)
		<-stopped
		f, err := wire.ParseFrame(got)
		if err != nil || f.Kind != wire.KindMutations {
			t.Fatalf("%v, %s", err, f.Kind)
		}
	})
}

func TestProtocolErrorsEndTheSessionWithAReason(t *testing.T) {
	damaged := wire.AppendAck(nil, wire.Ack{})
	damaged[wire.HeaderSize] ^= 1
	tests := []struct {
		name string
		send []byte
		code wire.Code
	}{
		{"ack past what was sent", wire.AppendAck(nil, wire.Ack{Received: 6, Applied: 5, Durable: 5}), wire.CodeProtocol},
		{"ack behind the hello", wire.AppendAck(nil, wire.Ack{Received: 5, Applied: 1}), wire.CodeProtocol},
		{"fetch without a full sync", wire.AppendFetch(nil, wire.Fetch{}), wire.CodeProtocol},
		{"frame of the other side", wire.AppendHeartbeat(nil, wire.Heartbeat{}), wire.CodeProtocol},
		{"damaged frame", damaged, wire.CodeCorrupt},
		{"no frame", []byte("GET / HTTP/1.1\r\n\r\n"), wire.CodeProtocol},
		{"too large", wire.AppendControl(nil, wire.KindAck, make([]byte, maxSmall+1))[:wire.HeaderSize], wire.CodeProtocol},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, 1, backlog.Options{}, ServerOptions{})
				s.shards[0].write(5, 10)
				p := s.resume(0, 1, 2)
				p.frames(2, 5)
				p.send(tc.send)
				if r := p.ending(); r.Code != tc.code || r.Text == "" {
					t.Fatalf("ended with %q: %s", r.Code, r.Text)
				}
				synctest.Wait()
				if state, applied := s.slot(0); state != slotDetached || applied != 0 {
					t.Fatalf("slot is %s, acked %d", state, applied)
				}
			})
		})
	}
}

// An ack that goes back, too.
func TestAckBackwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{})
		s.shards[0].write(5, 10)
		p := s.resume(0, 1, 2)
		p.frames(2, 5)
		p.ack(5, 5, 5)
		p.ack(5, 4, 4)
		if r := p.ending(); r.Code != wire.CodeProtocol {
			t.Fatalf("ended with %q: %s", r.Code, r.Text)
		}
		synctest.Wait()
		if _, applied := s.slot(0); applied != 5 {
			t.Fatalf("acked %d", applied)
		}
	})
}

// Optional kinds are skipped and count as a sign of life.
func TestKeepaliveKeepsAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{})
		p := s.resume(0, 1, 0)
		for range 30 {
			p.heartbeat()
			p.send(wire.AppendControl(nil, wire.KindKeepalive, nil))
		}
		p.send(wire.AppendControl(nil, wire.KindOptional+9, []byte("later")))
		p.heartbeat()
	})
}

func TestCloseSaysGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{})
		p := s.resume(0, 1, 0)
		idle := s.dial(0)
		p.heartbeat()
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			s.end()
		}()
		if r := p.ending(); r.Code != wire.CodeShutdown {
			t.Fatalf("ended with %q: %s", r.Code, r.Text)
		}
		if r := idle.ending(); r.Code != "" {
			t.Fatalf("a stranger was told %q", r.Code)
		}
		<-closed
	})
}

// One shard's replica that misbehaves is nothing to the others (pitfall 33).
func TestSessionsDoNotDisturbEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 2, backlog.Options{}, ServerOptions{})
		good := s.resume(1, 1, 0)
		deaf := s.resume(1, 2, 0)
		_ = deaf
		s.resume(0, 1, 0).close()
		good.heartbeat()
		for i := range uint64(20) {
			s.shards[1].write(1, 1000)
			good.frames(i, i+1)
			good.ack(i+1, i+1, i+1)
		}
		synctest.Wait()
		if n := s.server.WaitAcked(context.Background(), []uint64{0, 20}, 0, 0); n != 1 {
			t.Fatalf("%d replicas counted", n)
		}
	})
}

// A replica that lags behind memory and disk loses its session, with the reason (the cap beats the slots).
func TestTheCapBeatsTheSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{Memory: 64 << 10, Keep: 64 << 10, Disk: 128 << 10, SegmentBytes: 16 << 10}, ServerOptions{})
		f := s.shards[0]
		f.write(1, 1000)
		p := s.resume(0, 1, 0)
		p.heartbeat()
		p.frames(0, 1)
		p.ack(1, 1, 1)
		// It goes on living, and reads nothing.
		f.write(1000, 1000)
		f.trim()
		var last error
		r := wire.Refusal{}
		for last == nil && r.Code == "" {
			var fr wire.Frame
			if fr, last = p.try(); last == nil && fr.Kind == wire.KindBye {
				r, last = wire.ParseRefusal(fr.Kind, fr.Payload)
			}
		}
		if r.Code != wire.CodeEvicted {
			t.Fatalf("ended with %q: %s (%v)", r.Code, r.Text, last)
		}
		synctest.Wait()
		st := s.server.Status(0)
		if len(st.Slots) != 1 || st.Slots[0].BytesLeft != 0 {
			t.Fatalf("slots %+v", st.Slots)
		}
		again := s.dial(0)
		h := hello(1, at(1))
		h.Shards = 1
		again.send(wire.AppendHello(nil, h))
		if w := again.welcome(wire.KindFullSync); w.Reason != wire.ReasonEvicted {
			t.Fatalf("full sync for %q", w.Reason)
		}
	})
}

// While a replica is away, status tells how long its slot will last at the present write rate.
func TestForecast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{Limits: func() (int64, int64, int64) { return 1, 1 << 20, 10 << 20 }})
		f := s.shards[0]
		p := s.resume(0, 1, 0)
		p.heartbeat()
		p.ack(0, 0, 0)
		p.close()
		for range 12 {
			time.Sleep(time.Second)
			f.write(100, 1000-wire.Overhead)
		}
		synctest.Wait()
		st := s.server.Status(0)
		if r := st.Log.WriteRate; r < 90_000 || r > 130_000 {
			t.Errorf("write rate %v, want about 100,000", r)
		}
		slot := st.Slots[0]
		if slot.RetainedBytes < 1_150_000 || slot.BytesLeft > 10<<20-1_150_000 || slot.SecondsLeft < 60 || slot.SecondsLeft > 110 {
			t.Errorf("forecast %+v", slot)
		}
		if slot.DetachedFor != 12 || slot.ReapedIn != 48 || slot.LagMutations != 1200 {
			t.Errorf("slot %+v", slot)
		}
	})
}

func Example_ports() {
	fmt.Println(node.CheckPorts(65530, 8))
	// Output: 8 shards from port base 65530 need the ports 65530-65537, which do not all lie within 1-65535: choose another --replication-port-base, or fewer shards
}
