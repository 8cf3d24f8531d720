package primary

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/wire"
)

// A TAKEOVER is passed on if it is of our cluster and has good credentials, answered once, and its connection closed.
func TestTakeover(t *testing.T) {
	good := wire.Takeover{
		ID: wire.ID{1}, Node: wire.ID{2}, Cluster: "orders", User: "mirror", Password: []byte("secret"), Positions: []wire.Position{at(5)},
	}
	for name, c := range map[string]struct {
		change func(*wire.Takeover)
		want   wire.Outcome
		text   string
	}{
		"done":           {func(*wire.Takeover) {}, wire.OutcomeDone, ""},
		"taken back":     {func(o *wire.Takeover) { o.Cancel = true }, wire.OutcomeVoid, ""},
		"wrong password": {func(o *wire.Takeover) { o.Password = nil }, wire.OutcomeRefused, "auth"},
		"other cluster":  {func(o *wire.Takeover) { o.Cluster = "other" }, wire.OutcomeRefused, "cluster-name"},
		"no id":          {func(o *wire.Takeover) { o.ID = wire.ID{} }, wire.OutcomeRefused, "protocol"},
		"no sender":      {func(o *wire.Takeover) { o.Node = wire.ID{} }, wire.OutcomeRefused, "protocol"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked []wire.Takeover
				s := newStage(t, 1, backlog.Options{}, ServerOptions{
					Cluster: "orders",
					Authenticate: func(user string, password []byte) error {
						if user != "mirror" || string(password) != "secret" {
							return errors.New("unknown user")
						}
						return nil
					},
					Takeover: func(_ context.Context, o wire.Takeover) wire.TakeoverReply {
						asked = append(asked, o)
						r := wire.TakeoverReply{ID: o.ID, Outcome: wire.OutcomeDone, Positions: o.Positions}
						if o.Cancel {
							r.Outcome = wire.OutcomeVoid
						}
						return r
					},
				})
				o := good
				c.change(&o)
				p := s.dial(0)
				p.send(wire.AppendTakeover(nil, o))
				f := p.until(wire.KindTakeoverReply)
				r, err := wire.ParseTakeoverReply(f.Payload)
				if err != nil || r.ID != o.ID || r.Outcome != c.want || !strings.Contains(r.Text, c.text) {
					t.Fatalf("%+v, %v", r, err)
				}
				if passed := c.want != wire.OutcomeRefused; passed != (len(asked) == 1) {
					t.Fatalf("asked %d times", len(asked))
				}
				if _, err := p.try(); err == nil {
					t.Fatal("the connection goes on")
				}
			})
		})
	}
}

// A probe that is answered ready may be followed by the request, on the same connection and for a while, and by nothing else.
func TestTakeoverProbe(t *testing.T) {
	ask := wire.Takeover{ID: wire.ID{1}, Node: wire.ID{2}, Positions: []wire.Position{at(5)}}
	probe := ask
	probe.Probe = true
	for name, c := range map[string]struct {
		next  []byte        // what comes behind the probe
		want  wire.Outcome  // the answer to that, if any
		after time.Duration // when the connection is closed, at most
	}{
		"the request":     {wire.AppendTakeover(nil, ask), wire.OutcomeDone, 0},
		"another probe":   {wire.AppendTakeover(nil, probe), wire.OutcomeReady, 0},
		"another version": {wire.AppendControl(nil, wire.KindTakeover, []byte{9, 0}), "", 0},
		"a HELLO":         {wire.AppendHello(nil, hello(1, at(0))), "", 0},
		"silence":         {nil, "", HandshakeTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var done int
				s := newStage(t, 1, backlog.Options{}, ServerOptions{
					Takeover: func(_ context.Context, o wire.Takeover) wire.TakeoverReply {
						if o.Probe {
							return wire.TakeoverReply{ID: o.ID, Outcome: wire.OutcomeReady}
						}
						done++
						return wire.TakeoverReply{ID: o.ID, Outcome: wire.OutcomeDone}
					},
				})
				p := s.dial(0)
				p.send(wire.AppendTakeover(nil, probe))
				if r, err := wire.ParseTakeoverReply(p.until(wire.KindTakeoverReply).Payload); err != nil || r.Outcome != wire.OutcomeReady || done != 0 {
					t.Fatalf("%+v, %v, and %d takeovers", r, err, done)
				}
				began := time.Now()
				if c.next != nil {
					go p.conn.Write(c.next) //nolint:errcheck // it may be closed in the middle
				}
				if c.want != "" {
					if r, err := wire.ParseTakeoverReply(p.until(wire.KindTakeoverReply).Payload); err != nil || r.Outcome != c.want {
						t.Fatalf("%+v, %v", r, err)
					}
				}
				if f, err := p.try(); err == nil {
					t.Fatalf("the connection goes on with a %s", f.Kind)
				}
				if took := time.Since(began); took > c.after {
					t.Errorf("closed after %v, want %v", took, c.after)
				}
				if want := c.want == wire.OutcomeDone; want != (done == 1) {
					t.Errorf("%d takeovers", done)
				}
			})
		})
	}
	// A server that is closed does not wait for the request.
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{Takeover: func(_ context.Context, o wire.Takeover) wire.TakeoverReply {
			return wire.TakeoverReply{ID: o.ID, Outcome: wire.OutcomeReady}
		}})
		p := s.dial(0)
		p.send(wire.AppendTakeover(nil, probe))
		p.until(wire.KindTakeoverReply)
		began := time.Now()
		s.end()
		if d := time.Since(began); d > byeTimeout {
			t.Fatalf("closed after %v", d)
		}
	})
}

// What is no TAKEOVER of this version, or too large for a stranger, is closed and counted, as any garbage is; and without a
// way to take over there is a reply that says so.
func TestTakeoverRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{})
		for _, b := range [][]byte{
			wire.AppendControl(nil, wire.KindTakeover, []byte{9, 0}),
			wire.AppendTakeover(nil, wire.Takeover{Password: make([]byte, wire.MaxHandshake)}),
		} {
			p := s.dial(0)
			go p.conn.Write(b) //nolint:errcheck // it may be closed in the middle
			if f, err := p.try(); err == nil {
				t.Fatalf("answered by a %s", f.Kind)
			}
		}
		synctest.Wait()
		if n := s.server.Counters(0).Refusals[refusedGarbage]; n != 2 {
			t.Fatalf("%d connections counted as garbage", n)
		}
		p := s.dial(0)
		p.send(wire.AppendTakeover(nil, wire.Takeover{ID: wire.ID{1}, Node: wire.ID{2}}))
		r, err := wire.ParseTakeoverReply(p.until(wire.KindTakeoverReply).Payload)
		if err != nil || r.Outcome != wire.OutcomeRefused || r.Text == "" {
			t.Fatalf("%+v, %v", r, err)
		}
	})
}

// A server that is closed does not wait for who asked to read the answer.
func TestTakeoverDoesNotHoldUpClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{})
		s.dial(0).send(wire.AppendTakeover(nil, wire.Takeover{ID: wire.ID{1}, Node: wire.ID{2}}))
		synctest.Wait() // the answer is stuck
		began := time.Now()
		s.end()
		if d := time.Since(began); d > byeTimeout {
			t.Fatalf("closed after %v", d)
		}
	})
}

// The slot of a replica that was promoted keeps the log for the reconnect window, since it may come back, and no longer.
func TestSlotOfAPromotedReplicaIsReaped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, following := []wire.ID{{0xAA}}, false
		s := newStage(t, 1, backlog.Options{}, ServerOptions{
			ReconnectWindow: 20 * time.Second, Path: func() []wire.ID { return path }, Following: func() bool { return following },
		})
		s.shards[0].write(5, 10)
		p := s.resume(0, 1, 2)
		go p.drain()
		path, following = []wire.ID{hello(1, at(0)).Node, {0xAA}}, true
		s.server.Changed()
		time.Sleep(19 * time.Second)
		if floor, any := s.shards[0].floor(); floor != 2 || !any {
			t.Fatalf("the log is kept from %d on (%v) within the window", floor, any)
		}
		time.Sleep(3 * time.Second)
		if _, any := s.shards[0].floor(); any {
			t.Fatal("the slot outlives the window")
		}
	})
}
