package replica

import (
	"context"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/wire"
)

// TestSilentPrimary: nobody answers, or the answerer falls silent (pitfalls 31, 32). Both end within 10 s.
func TestSilentPrimary(t *testing.T) {
	for _, welcome := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := newFakePrimary(t)
			var ended time.Duration
			p.script = func(c net.Conn, h wire.Hello) error {
				begin := time.Now()
				if welcome {
					w := wire.Welcome{Version: wire.Version, Shards: 1, Lineage: p.lineage, Position: h.Position}
					if _, err := c.Write(wire.AppendWelcome(nil, w)); err != nil {
						return err
					}
				}
				for len(p.byesNow()) == 0 {
					time.Sleep(10 * time.Millisecond)
				}
				p.locked(func() { ended, p.script = time.Since(begin), nil })
				return errPrimaryDone
			}
			network := &network{t: t, primaries: []*fakePrimary{p}}
			f := network.follow(filledStore(vfs.NewMem(), 0, ""), nil)
			caughtUp(t, f)
			if ended < 9*time.Second || ended > 11*time.Second || p.byes[0].Code != wire.CodeTimeout {
				t.Fatalf("ended after %s with %+v", ended, p.byes)
			}
			network.close(f)
		})
	}
}

// TestPrimaryThatDoesNotRead: acks that nobody takes end the link after 9 s (pitfall 31).
func TestPrimaryThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		store := filledStore(vfs.NewMem(), 0, "")
		n := 0
		f := (&network{t: t}).follow(store, func(o *FollowerOptions) {
			o.Dial = func(ctx context.Context, _ string) (net.Conn, error) {
				if n++; n > 1 {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return ours, nil
			}
		})
		buf := make([]byte, 4096)
		if _, err := theirs.Read(buf); err != nil { // the HELLO
			t.Fatal(err)
		}
		w := wire.Welcome{Version: wire.Version, Shards: 1, Lineage: wire.Lineage{{Generation: gen1}}, Position: wire.Position{Generation: gen1}}
		if _, err := theirs.Write(wire.AppendWelcome(nil, w)); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		for f.Status()[0].Link.State == "streaming" || f.Status()[0].Link.State == "handshake" {
			if _, err := theirs.Write(wire.AppendHeartbeat(nil, wire.Heartbeat{Position: w.Position})); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		if d := time.Since(begin); d < 9*time.Second || d > 13*time.Second {
			t.Fatalf("ended after %s", d)
		}
		synctest.Wait()
		if l := f.Status()[0].Link; !strings.Contains(l.LastError, ErrStuck.Error()) {
			t.Fatalf("last error %q", l.LastError)
		}
		theirs.Close()
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
