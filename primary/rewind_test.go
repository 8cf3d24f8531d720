package primary

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/slottable"
	"github.com/understudy-kv/understudy/wire"
)

// diverged is a stage whose shard is at 30 of generation b, which began at 10, and a replica at 15 of generation a.
func diverged(t *testing.T, difference bool) (*stage, *peer) {
	s := newStage(t, 1, backlog.Options{}, ServerOptions{})
	f := s.shards[0]
	f.write(10, 10)
	f.begin('b')
	f.write(20, 10)
	f.values = map[string][]byte{"a": []byte("1"), "big": make([]byte, 3*valuesRun), "c": []byte("3")}
	p := s.dial(0)
	h := hello(1, at(15))
	h.Lineage = history
	if difference {
		h.Capabilities = wire.CapDifference
	}
	p.send(wire.AppendHello(nil, h))
	return s, p
}

func wants(last bool, keys ...string) []byte {
	w := wire.WantKeys{Last: last}
	for _, k := range keys {
		w.Keys = append(w.Keys, []byte(k))
	}
	return wire.AppendWantKeys(nil, w)
}

// A replica with a surplus is told where to go back to and what the keys are worth here, all at one position; the log is
// kept from the fork on; and it counts for nobody before its data is whole again.
func TestRewind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := diverged(t, true)
		f := s.shards[0]
		w := p.welcome(wire.KindRewind)
		if !w.Rewind || w.Position != at(10) || w.Next != 30 || !w.Lineage.Equal(f.Lineage()) || w.Reason != "" {
			t.Fatalf("rewind %+v", w)
		}
		synctest.Wait()
		if floor, any := f.floor(); floor != 10 || !any {
			t.Fatalf("the log is kept from %d on (%v), want the fork", floor, any)
		}
		// The replica takes its time, and answers heartbeats with what it still has: no ack of this history.
		p.heartbeat()
		p.ack(15, 15, 15)
		p.heartbeat()
		p.send(wants(false, "a", "b"))
		p.send(wants(false))
		p.send(wants(true, "big", "c"))
		got := map[string]string{}
		frames := 0
		var settles wire.Position
		for settles.IsZero() {
			switch frame := p.next(); frame.Kind {
			case wire.KindValues:
				if err := frame.CheckValues(); err != nil {
					t.Fatal(err)
				}
				frames++
				for ops := frame.Ops(); ops.Next(); {
					op := ops.Op()
					got[string(op.Key)] = fmt.Sprintf("%s %d", op.Kind, len(op.Value))
				}
			case wire.KindValuesEnd:
				var err error
				if settles, err = wire.ParseValuesEnd(frame.Payload); err != nil {
					t.Fatal(err)
				}
			case wire.KindHeartbeat:
			default:
				t.Fatalf("a %s", frame.Kind)
			}
		}
		want := fmt.Sprint(map[string]string{"a": "put 1", "b": "delete 0", "big": fmt.Sprint("put ", 3*valuesRun), "c": "put 1"})
		if fmt.Sprint(got) != want || frames != 3 || settles != f.Position() {
			t.Fatalf("%v in %d frames, settles at %s", got, frames, settles)
		}
		if state, applied := s.slot(0); state != slotSyncing || applied != 0 {
			t.Fatalf("%s, applied %d", state, applied)
		}
		p.close()
		synctest.Wait()
		if floor, any := f.floor(); floor != 10 || !any {
			t.Fatalf("the log is kept from %d on (%v), want the fork", floor, any)
		}

		p = s.dial(0)
		h := hello(1, at(10))
		h.Lineage, h.Capabilities = history, wire.CapDifference
		p.send(wire.AppendHello(nil, h))
		p.welcome(wire.KindResume)
		p.heartbeat()
		f.write(5, 10)
		p.frames(10, 35)
		counted := func(o uint64) int { return s.server.WaitAcked(t.Context(), []uint64{o}, 0, slottable.Applied) }
		p.ack(35, 29, 29)
		synctest.Wait()
		if n := counted(20); n != 0 {
			t.Fatalf("%d replicas counted, whose data is a mix", n)
		}
		p.ack(35, 30, 30)
		synctest.Wait()
		if state, _ := s.slot(0); counted(20) != 1 || state != slotOnline {
			t.Fatalf("%d replicas counted, %s", counted(20), state)
		}
		if c := s.server.Counters(0); c.Rewinds != 1 || c.Resumes != 1 || len(c.FullSyncs) != 0 {
			t.Fatalf("counters %+v", c)
		}
	})
}

// What a replica may ask for in a rewind is bounded, and only a rewind is the place for it.
func TestRewindLimits(t *testing.T) {
	big := string(bytes.Repeat([]byte("k"), 40<<20))
	many := make([]string, wire.MaxWantKeys/2+1)
	for name, send := range map[string][][]byte{
		"too many bytes":        {wants(false, big), wants(true, big)},
		"too many keys":         {wants(false, many...), wants(true, many...)},
		"a list behind the end": {wants(true), wants(true)},
		"damage":                {wire.AppendControl(nil, wire.KindWantKeys, []byte{7})},
		"a fetch":               {wire.AppendFetch(nil, wire.Fetch{})},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, p := diverged(t, true)
				p.welcome(wire.KindRewind)
				go func() {
					for _, b := range send {
						if _, err := p.conn.Write(b); err != nil {
							return
						}
					}
				}()
				if r := p.ending(); r.Code != wire.CodeProtocol {
					t.Fatalf("ended by %+v", r)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{})
		p := s.resume(0, 1, 0)
		p.send(wants(true))
		if r := p.ending(); r.Code != wire.CodeProtocol {
			t.Fatalf("ended by %+v", r)
		}
	})
}

// A replica that is silent in a rewind, and one that does not read what it asked for, lose their session in time.
func TestRewindIsGuarded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := diverged(t, true)
		p.welcome(wire.KindRewind)
		go p.drain()
		time.Sleep(SilenceTimeout + time.Second)
		if state, _ := s.slot(0); state != slotDetached {
			t.Fatalf("%s behind the time for silence", state)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s, p := diverged(t, true)
		p.welcome(wire.KindRewind)
		p.send(wants(true, "a", "big"))
		time.Sleep(SilenceTimeout + WriteTimeout + 2*time.Second)
		if state, _ := s.slot(0); state != slotDetached {
			t.Fatalf("%s behind the time for a write", state)
		}
	})
}

// The shard's history changes while values are read: nothing says at which position they were.
func TestRewindIsOfOneLineage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := diverged(t, true)
		p.welcome(wire.KindRewind)
		p.send(wants(true, "big", "a"))
		synctest.Wait() // stuck in the first frame
		s.shards[0].begin('c')
		for {
			switch f := p.next(); f.Kind {
			case wire.KindValuesEnd:
				t.Fatal("the values have a position")
			case wire.KindBye:
				if r, err := wire.ParseRefusal(f.Kind, f.Payload); err != nil || r.Code != wire.CodeRole {
					t.Fatalf("ended by %+v (%v)", r, err)
				}
				return
			}
		}
	})
}

// Without the capability, or a state machine that can, the surplus costs a full sync.
func TestNoRewind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p := diverged(t, false)
		if w := p.welcome(wire.KindFullSync); w.Reason != wire.ReasonDiverged {
			t.Fatalf("full sync for %s", w.Reason)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{})
		f := s.shards[0]
		f.write(10, 10)
		f.begin('b')
		f.noValues = true
		h := hello(1, at(15))
		h.Lineage, h.Capabilities = history, wire.CapDifference
		p := s.dial(0)
		p.send(wire.AppendHello(nil, h))
		if w := p.welcome(wire.KindFullSync); w.Reason != wire.ReasonDiverged {
			t.Fatalf("full sync for %s", w.Reason)
		}
	})
}

// A shard in the middle of a rewind of its own serves nobody.
func TestUnsettledServesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{})
		s.shards[0].unsettled = true
		p := s.dial(0)
		p.send(wire.AppendHello(nil, hello(1, at(0))))
		if r := p.ending(); r.Code != wire.CodeLoading {
			t.Fatalf("%+v", r)
		}
		if !s.server.Status(0).Unsettled {
			t.Fatal("status does not tell")
		}
	})
}
