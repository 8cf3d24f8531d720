package primary

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/wire"
)

// Whatever is not a replica is closed, counted, and bothers nobody.
func TestGarbageIsClosedAndCounted(t *testing.T) {
	tls := append([]byte{0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03}, make([]byte, 64)...)
	half := wire.AppendHello(nil, hello(1, at(0)))
	tests := []struct {
		name  string
		send  []byte
		after time.Duration
	}{
		{"http", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), 0},
		{"tls", tls, 0},
		{"resp", []byte("*1\r\n$4\r\nPING\r\n"), 0},
		{"silence", nil, HandshakeTimeout},
		{"half a hello", half[:len(half)-5], HandshakeTimeout},
		{"another frame", wire.AppendAck(nil, wire.Ack{}), 0},
		{"a hello too large", wire.AppendControl(nil, wire.KindHello, make([]byte, wire.MaxHandshake+1))[:wire.HeaderSize], 0},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, 1, backlog.Options{}, ServerOptions{})
				good := s.resume(0, 9, 0)
				go good.keep(0)
				p := s.dial(0)
				began := time.Now()
				go p.conn.Write(tc.send)
				if _, err := p.link.read(func(wire.Kind) uint32 { return maxSmall }, time.Now().Add(time.Minute)); err == nil {
					t.Fatal("it was answered")
				}
				if d := time.Since(began); d != tc.after {
					t.Fatalf("closed after %v, want %v", d, tc.after)
				}
				synctest.Wait()
				if c := s.server.Counters(0); c.Refusals[refusedGarbage] != 1 {
					t.Fatalf("counters %+v", c)
				}
				if s.server.Status(0).Slots[0].State != slotOnline {
					t.Fatal("the replica was disturbed")
				}
			})
		})
	}
}

// A byte every few seconds does not stretch the handshake.
func TestDrippingHello(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{})
		p := s.dial(0)
		began := time.Now()
		for _, b := range wire.AppendHello(nil, hello(1, at(0))) {
			if _, err := p.conn.Write([]byte{b}); err != nil {
				break
			}
			time.Sleep(3 * time.Second)
		}
		if d := time.Since(began); d > HandshakeTimeout+3*time.Second {
			t.Fatalf("closed after %v", d)
		}
	})
}

// However many idle connections there are, few are kept and a replica gets in at once.
func TestIdleConnectionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{MaxReplicas: 8})
		for range 1000 {
			s.dial(0)
		}
		synctest.Wait()
		p := &s.server.ports[0].pending
		p.mu.Lock()
		n := len(p.mu.conns)
		p.mu.Unlock()
		if n != 8 {
			t.Fatalf("%d handshakes are waited for, want 8", n)
		}
		began := time.Now()
		s.resume(0, 1, 0)
		if time.Since(began) != 0 {
			t.Fatal("a replica had to wait")
		}
		if c := s.server.Counters(0); c.Refusals[refusedCrowded] != 993 {
			t.Fatalf("counters %+v", c)
		}
	})
}

func TestMaxReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{MaxReplicas: 2})
		s.resume(0, 1, 0)
		two := s.resume(0, 2, 0)
		three := s.dial(0)
		three.send(wire.AppendHello(nil, hello(3, at(0))))
		if r := three.ending(); r.Code != wire.CodeBusy || r.Shards != 1 {
			t.Fatalf("the third was told %q: %s", r.Code, r.Text)
		}
		two.close()
		synctest.Wait()
		s.resume(0, 3, 0)
	})
}

// The same process redials: it is let in at once, and the old session told why. Another process with the same id is
// refused while the first lives, and told where it is (pitfall 12).
func TestTwoProcessesOneID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{})
		first := s.resume(0, 1, 0)
		second := s.resume(0, 1, 0)
		if r := first.ending(); r.Code != wire.CodeReplaced {
			t.Fatalf("the old session ended with %q: %s", r.Code, r.Text)
		}
		go second.keep(0)
		other := hello(1, at(0))
		other.Nonce = wire.ID{77}
		p := s.dial(0)
		p.send(wire.AppendHello(nil, other))
		if r := p.ending(); r.Code != wire.CodeSlotTaken {
			t.Fatalf("another process was told %q: %s", r.Code, r.Text)
		}
		synctest.Wait()
		if state, _ := s.slot(0); state != slotOnline {
			t.Fatalf("slot is %s", state)
		}
		second.close()
		synctest.Wait()
		p = s.dial(0)
		p.send(wire.AppendHello(nil, other))
		p.welcome(wire.KindResume)
	})
}

func TestAnotherVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{})
		p := s.dial(0)
		// Version 2, with a required field that this version does not know.
		p.send(wire.AppendControl(nil, wire.KindHello, []byte{2, 0, 0x99, 0x80, 0, 0, 0, 0}))
		if r := p.ending(); r.Code != wire.CodeVersion {
			t.Fatalf("told %q: %s", r.Code, r.Text)
		}
	})
}

// Pitfall 1: the log is trimmed between the look at it and the answer. The answer is of one moment, or made again.
func TestTrimmedWhileDeciding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{Memory: 16 << 10, Keep: 16 << 10, Disk: 64 << 10, SegmentBytes: 4 << 10}, ServerOptions{})
		f := s.shards[0]
		f.write(10, 1000)
		f.mu.Lock()
		f.onLineage = func() { // the first look
			f.onLineage = func() { // the second, while the reader is open
				f.write(200, 1000)
				f.mu.Unlock()
				defer f.mu.Lock()
				f.trim()
			}
		}
		f.mu.Unlock()
		p := s.dial(0)
		h := hello(1, at(5))
		h.Shards = 1
		p.send(wire.AppendHello(nil, h))
		if w := p.welcome(wire.KindFullSync); w.Reason != wire.ReasonEvicted || w.Position.Offset != 210 {
			t.Fatalf("full sync for %q at %s", w.Reason, w.Position)
		}
		synctest.Wait()
		if n := len(s.server.Status(0).Slots); n != 1 {
			t.Fatalf("%d slots", n)
		}
	})
}
