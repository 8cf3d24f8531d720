package replica

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

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
			var resets atomic.Int32
			f := network.follow(filledStore(vfs.NewMem(), 0, ""), func(o *FollowerOptions) {
				o.Dial = func(ctx context.Context, address string) (net.Conn, error) {
					c, err := network.dial(ctx, address)
					return &pipe{c, &resets}, err
				}
			})
			caughtUp(t, f)
			if n := resets.Load(); n != 1 {
				t.Errorf("%d connections were reset: the end of one to a primary that does not answer would wait for that", n)
			}
			if ended < 9*time.Second || ended > 11*time.Second || p.byes[0].Code != wire.CodeTimeout {
				t.Fatalf("ended after %s with %+v", ended, p.byes)
			}
			network.close(f)
		})
	}
}

// pipe counts how often it is about to be reset.
type pipe struct {
	net.Conn
	resets *atomic.Int32
}

func (p *pipe) SetLinger(sec int) error {
	if sec == 0 {
		p.resets.Add(1)
	}
	return nil
}

// TestPrimaryThatDoesNotRead: acks that nobody takes end the link after 9 s (pitfall 31).
func TestPrimaryThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		store := filledStore(vfs.NewMem(), 0, "")
		n := 0
		var resets atomic.Int32
		f := (&network{t: t}).follow(store, func(o *FollowerOptions) {
			o.Dial = func(ctx context.Context, _ string) (net.Conn, error) {
				if n++; n > 1 {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return &pipe{ours, &resets}, nil
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
		for state := "handshake"; state == "streaming" || state == "handshake"; state = f.Status()[0].Link.State {
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
		if n := resets.Load(); n != 1 {
			t.Errorf("%d connections were reset", n)
		}
		theirs.Close()
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestSlowPrimary: what a replica says at length, as the keys of its surplus, may take as long as it wants to while some of it is taken
// (pitfalls 29, 31).
func TestSlowPrimary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		s := &session{r: &runner{f: &Follower{opts: FollowerOptions{StuckWrite: 9 * time.Second}}}, ctx: t.Context(), conn: ours, done: make(chan struct{})}
		done := make(chan int)
		// It reads to the end, which is below.
		go func() {
			n := 0
			for buf := make([]byte, 20_000); ; {
				time.Sleep(time.Second)
				m, err := theirs.Read(buf)
				if n += m; err != nil {
					done <- n
					return
				}
			}
		}()
		begun := time.Now()
		if err := s.send(make([]byte, wantAhead+wantRun)); err != nil || time.Since(begun) < 20*time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		ours.Close()
		if n := <-done; n != wantAhead+wantRun {
			t.Errorf("%d bytes arrived of %d", n, wantAhead+wantRun)
		}
	})
}

// TestDiskThatStandsStill: whatever waits for the disk in a first full sync takes longer than either end waits for a word of the other one.
// The replica goes on to speak, and does not take its own deafness for the primary's silence.
func TestDiskThatStandsStill(t *testing.T) {
	for range 2 { // with a reading that is lent, and without
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			waited := map[string]bool{} // a kind of access to a file
			fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
				what := fmt.Sprint(op.Kind, " ", op.Path)
				mu.Lock()
				first := !waited[what]
				waited[what] = true
				mu.Unlock()
				if first {
					time.Sleep(15 * time.Second)
				}
				return nil
			}))
			network := &network{t: t}
			for i := range 2 {
				p := syncedPrimary(t)
				p.shard, p.shards = uint32(i), 2
				// More than is on its way to the disk at most.
				p.chunk, p.files = 256<<10, append(p.files, file{"more", make([]byte, (writeBlocks+2)*maxBlock)})
				network.primaries = append(network.primaries, p)
			}
			store := &fakeStore{fs: fs, making: func() { time.Sleep(20 * time.Second) }}
			f := network.follow(store, nil)
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			if err := f.WaitCaughtUp(ctx); err != nil {
				t.Fatal(err)
			}
			if len(waited) < 50 {
				t.Errorf("the disk stood still %d times only: %v", len(waited), waited)
			}
			for i, p := range network.primaries {
				p.locked(func() {
					if len(p.hellos) != 1 || len(p.byes) != 0 || p.silence > 2*keepaliveEvery {
						t.Errorf("shard %d: %d sessions, ended with %+v, up to %s without a word", i, len(p.hellos), p.byes, p.silence)
					}
				})
			}
			network.close(f)
		})
	}
}
