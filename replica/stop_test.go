package replica

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/wire"
)

// stopped stops the follower and reports how long that took; more than a minute fails the test.
func stopped(t *testing.T, f *Follower, p *fakePrimary, drain bool) time.Duration {
	t.Helper()
	begin := time.Now()
	done := make(chan error, 1)
	// Ends with Stop, which is waited for, or by the cut.
	go func() { done <- f.Stop(drain) }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("Stop waits for the primary")
		p.locked(func() { p.script = nil })
		p.cutAll()
		<-done
	}
	return time.Since(begin)
}

// TestStopDrains: what was received at a promotion is applied, what comes later is not, and nothing is applied any more
// once Stop has returned (pitfall 28). Without drain only what was being applied is.
func TestStopDrains(t *testing.T) {
	for _, drain := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			p := newFakePrimary(t)
			network := &network{t: t, primaries: []*fakePrimary{p}}
			store := filledStore(vfs.NewMem(), 0, "")
			shard := store.shards[0]
			f := network.follow(store, nil)
			p.write("before")
			caughtUp(t, f)
			gate := make(chan struct{})
			shard.locked(func() { shard.gate = gate })
			p.write("applying")
			synctest.Wait()
			p.write("queued", "too")
			p.write("and this")
			synctest.Wait()

			done := make(chan error, 1)
			// Ends with Stop, which is waited for.
			go func() { done <- f.Stop(drain) }()
			synctest.Wait()
			p.write("late")
			time.Sleep(5 * time.Second)
			select {
			case <-done:
				t.Fatal("it returned while a run was being applied")
			default:
			}
			close(gate)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			want := "before\napplying\n"
			if drain {
				want += "queued\ntoo\nand this\n"
			}
			if got := shard.text(); got != want {
				t.Fatalf("drain %t: %q, want %q", drain, got, want)
			}
			p.write("later still")
			time.Sleep(time.Minute)
			if got := shard.text(); got != want {
				t.Fatalf("drain %t: %q after Stop, want %q", drain, got, want)
			}
			if b := p.byesNow(); len(b) != 1 || b[0].Code != wire.CodeShutdown {
				t.Fatalf("the primary was told %+v", b)
			}
			network.serving.Wait()
		})
	}
}

// TestStopNeverWaitsForThePrimary: whatever the primary does or does not, a stop takes the time of the last words at
// most (pitfall 33).
func TestStopNeverWaitsForThePrimary(t *testing.T) {
	silent := func(p *fakePrimary, answer func(wire.Hello) []byte) func(net.Conn, wire.Hello) error {
		return func(c net.Conn, h wire.Hello) error {
			if _, err := c.Write(answer(h)); err != nil {
				return err
			}
			for len(p.byesNow()) == 0 {
				time.Sleep(10 * time.Millisecond)
			}
			return errPrimaryDone
		}
	}
	welcome := func(p *fakePrimary, reason wire.Reason) func(wire.Hello) []byte {
		return func(h wire.Hello) []byte {
			return wire.AppendWelcome(nil, wire.Welcome{Version: wire.Version, Shards: 1, Lineage: p.lineage, Position: h.Position, Next: 9, Reason: reason})
		}
	}
	cases := []struct {
		name  string
		state string
		dial  func(context.Context, string) (net.Conn, error)
		setup func(*fakePrimary)
	}{
		{name: "a dial that nobody answers", state: "connecting", dial: func(ctx context.Context, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}},
		{name: "a dial that succeeds as the stop comes", state: "connecting"},
		{name: "a HELLO that nobody reads", state: "handshake", dial: func(context.Context, string) (net.Conn, error) {
			ours, _ := net.Pipe()
			return ours, nil
		}},
		{name: "a HELLO without an answer", state: "handshake", setup: func(p *fakePrimary) {
			p.script = silent(p, func(wire.Hello) []byte { return nil })
		}},
		{name: "a full sync without a manifest", state: "syncing", setup: func(p *fakePrimary) {
			p.script = silent(p, welcome(p, wire.ReasonEvicted))
		}},
		{name: "a stream that fell silent", state: "streaming", setup: func(p *fakePrimary) { p.script = silent(p, welcome(p, "")) }},
		{name: "a link that waits", state: "backoff", setup: func(p *fakePrimary) {
			p.refuse = &wire.Refusal{Version: wire.Version, Code: wire.CodeBusy, Text: "come again"}
		}},
	}
	for _, c := range cases {
		for _, drain := range []bool{true, false} {
			t.Run(c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := newFakePrimary(t)
					network := &network{t: t, primaries: []*fakePrimary{p}}
					store := filledStore(vfs.NewMem(), 0, "")
					if c.setup != nil {
						c.setup(p)
					}
					f := network.follow(store, func(o *FollowerOptions) {
						switch {
						case c.dial != nil:
							o.Dial = c.dial
						case c.setup == nil:
							o.FS = slowFS{vfs.NewMem()}
							o.Dial = func(ctx context.Context, address string) (net.Conn, error) {
								<-ctx.Done()
								return network.dial(ctx, address)
							}
						}
					})
					time.Sleep(time.Second / 2)
					synctest.Wait()
					if got := f.Status()[0].Link.State; got != c.state {
						t.Fatalf("state %s, want %s", got, c.state)
					}
					if took := stopped(t, f, p, drain); took > 2*time.Second {
						t.Errorf("drain %t: it took %s", drain, took)
					}
					network.serving.Wait()
				})
			})
		}
	}
}

// slowFS takes its time to tell what is staged.
type slowFS struct{ vfs.FS }

func (fs slowFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	time.Sleep(100 * time.Millisecond)
	return fs.FS.Open(name, opts...)
}

// TestPlace: the primary's place in its chain is that of its last answer, stays while the link is down, and a change of
// it is told once.
func TestPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakePrimary(t)
		path, announce := []wire.ID{{7}, {8}}, "db1:7379"
		stays := time.Duration(0)
		p.script = func(c net.Conn, h wire.Hello) error {
			p.mu.Lock()
			w := wire.Welcome{Version: wire.Version, Shards: 1, Lineage: p.lineage, Position: h.Position, Path: path, Announce: announce}
			stay := stays
			p.mu.Unlock()
			if _, err := c.Write(wire.AppendWelcome(nil, w)); err != nil {
				return err
			}
			time.Sleep(stay)
			return errPrimaryDone
		}
		network := &network{t: t, primaries: []*fakePrimary{p}}
		changes := 0
		f := network.follow(filledStore(vfs.NewMem(), 0, ""), func(o *FollowerOptions) {
			o.OnChange = func() { changes++ }
		})
		expect := func(want []wire.ID, times int) {
			t.Helper()
			synctest.Wait()
			if got := f.Path(); !slices.Equal(got, want) || changes != times || f.Upstream() != announce {
				t.Fatalf("path %v at %q, %d changes; want %v at %q, %d", got, f.Upstream(), changes, want, announce, times)
			}
		}
		time.Sleep(10 * time.Second) // it answers each time, and hangs up
		if len(p.hellosNow()) < 3 {
			t.Fatalf("%d sessions", len(p.hellosNow()))
		}
		expect([]wire.ID{{7}, {8}}, 1)
		network.mu.Lock()
		network.down = true
		network.mu.Unlock()
		time.Sleep(10 * time.Second)
		expect([]wire.ID{{7}, {8}}, 1)
		p.locked(func() { path = []wire.ID{{8}} }) // it was promoted
		network.mu.Lock()
		network.down = false
		network.mu.Unlock()
		time.Sleep(10 * time.Second)
		expect([]wire.ID{{8}}, 2)

		// And now it follows us: node 2. It stays to hear what we say to that.
		p.locked(func() { path, stays = []wire.ID{{9}, {2}, {8}}, time.Second })
		time.Sleep(20 * time.Second)
		expect([]wire.ID{{8}}, 2)
		if s := f.Status()[0]; !strings.Contains(s.Error, ErrLoop.Error()) {
			t.Fatalf("error %q", s.Error)
		}
		if b := p.byesNow(); len(b) == 0 || b[len(b)-1].Code != wire.CodeLoop {
			t.Fatalf("the primary was told %+v", b)
		}
		network.close(f)
	})
}

// TestClientPort: a port base that is a server's for clients is explained, and does not make the link hammer it.
func TestClientPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakePrimary(t)
		p.script = func(c net.Conn, _ wire.Hello) error {
			_, err := c.Write([]byte("-ERR unknown command\r\n"))
			return err
		}
		network := &network{t: t, primaries: []*fakePrimary{p}}
		f := network.follow(filledStore(vfs.NewMem(), 0, ""), nil)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		s := f.Status()[0]
		for _, want := range []string{"primary:7000", "replication=", `"-ERR unknown`} {
			if !strings.Contains(s.Error, want) {
				t.Errorf("error %q does not name %s", s.Error, want)
			}
		}
		if n := len(p.hellosNow()); n > 8 || s.Link.State != "stopped" {
			t.Errorf("%d attempts, state %s", n, s.Link.State)
		}
		p.locked(func() { p.script = nil }) // the right one, at last
		caughtUp(t, f)
		network.close(f)
	})
}

// TestAddresses: names are looked up at each dial, by way of the address that Dial gets, and IPv6 literals are understood.
func TestAddresses(t *testing.T) {
	for _, primary := range []string{"primary:7000", "[::1]:7000", "127.0.0.1:7000"} {
		synctest.Test(t, func(t *testing.T) {
			var dialled []string
			network := &network{t: t}
			f := network.follow(filledStore(vfs.NewMem(), 0, ""), func(o *FollowerOptions) {
				o.Primary = primary
				o.Dial = func(_ context.Context, address string) (net.Conn, error) {
					dialled = append(dialled, address)
					return nil, net.ErrClosed
				}
			})
			time.Sleep(10 * time.Second)
			network.close(f)
			if len(dialled) < 3 {
				t.Fatalf("%d dials", len(dialled))
			}
			for _, a := range dialled {
				if a != primary {
					t.Fatalf("dialled %q, want %q", a, primary)
				}
			}
		})
	}
	if _, err := NewFollower(FollowerOptions{Primary: "::1:7000", ReplicaID: wire.ID{1}, Store: emptyStore()}); err == nil {
		t.Fatal("an IPv6 address without brackets")
	}
}
