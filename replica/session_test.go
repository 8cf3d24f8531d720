package replica

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/netpoll/netpolltest"
	"github.com/understudy-kv/understudy/wire"
)

// cutConn ends the connection after so many bytes in one direction: of the writes, the last may pass in part.
type cutConn struct {
	net.Conn
	writes, reads *atomic.Int64 // what is left; nil: no limit
}

func (c cutConn) Write(b []byte) (int, error) {
	if c.writes == nil {
		return c.Conn.Write(b)
	}
	if left := c.writes.Load(); int64(len(b)) > left {
		n, _ := c.Conn.Write(b[:left])
		c.Conn.Close()
		return n, errors.New("cut")
	}
	c.writes.Add(-int64(len(b)))
	return c.Conn.Write(b)
}

func (c cutConn) Read(b []byte) (int, error) {
	if c.reads == nil {
		return c.Conn.Read(b)
	}
	left := c.reads.Load()
	if left == 0 {
		c.Conn.Close()
		return 0, errors.New("cut")
	}
	n, err := c.Conn.Read(b[:min(int64(len(b)), left)])
	c.reads.Add(-int64(n))
	return n, err
}

// cutFirst cuts the first connection after i bytes, from the primary or to it.
func cutFirst(i int64, towardsPrimary bool) func(int, net.Conn) net.Conn {
	return func(n int, c net.Conn) net.Conn {
		if n > 0 {
			return c
		}
		var left atomic.Int64
		left.Store(i)
		if towardsPrimary {
			return cutConn{Conn: c, reads: &left}
		}
		return cutConn{Conn: c, writes: &left}
	}
}

// TestExactlyOnceAcrossCuts cuts the link behind every byte of a session, in both directions: what is applied in the end
// is every mutation, once, in order (pitfalls 1, 5, 9, 15).
func TestExactlyOnceAcrossCuts(t *testing.T) {
	for _, towardsPrimary := range []bool{false, true} {
		for i := int64(0); ; i++ {
			var uncut bool
			synctest.Test(t, func(t *testing.T) {
				p := newFakePrimary(t)
				for k := range 6 {
					p.write(fmt.Sprintf("a%d", k), fmt.Sprintf("b%d", k))
				}
				network := &network{t: t, primaries: []*fakePrimary{p}, wrap: cutFirst(i, towardsPrimary)}
				store := filledStore(vfs.NewMem(), 4, "a0\nb0\na1\nb1\n")
				f := network.follow(store, nil)
				caughtUp(t, f)
				p.write("last")
				caughtUp(t, f)
				const want = "a0\nb0\na1\nb1\na2\nb2\na3\nb3\na4\nb4\na5\nb5\nlast\n"
				if got := store.shards[0].text(); got != want {
					t.Fatalf("cut behind byte %d: applied %q", i, got)
				}
				if want := bytes.Join(p.frames[2:], nil); !bytes.Equal(store.shards[0].frames, want) {
					t.Fatalf("cut behind byte %d: the frames were changed", i)
				}
				s := f.Status()[0]
				if len(s.FullSyncs) != 0 {
					t.Fatalf("cut behind byte %d: full syncs %v", i, s.FullSyncs)
				}
				uncut = network.dials == 1
				network.close(f)
			})
			if uncut {
				if i < 300 {
					t.Fatalf("only %d cuts", i)
				}
				break
			}
		}
	}
}

// TestDamageIsNeverApplied flips each byte of the stream in turn: the session ends, says why, and the frame comes again
// in the next one.
func TestDamageIsNeverApplied(t *testing.T) {
	for i := range len(frameOf(t, 0, "x", "y")) {
		synctest.Test(t, func(t *testing.T) {
			p := newFakePrimary(t)
			p.write("x", "y")
			p.write("z")
			good := p.frames[0]
			network := &network{t: t, primaries: []*fakePrimary{p}}
			network.wrap = func(n int, c net.Conn) net.Conn {
				p.frames[0] = good
				if n == 0 {
					p.frames[0] = bytes.Clone(good)
					p.frames[0][i] ^= 0x10
				}
				return c
			}
			store := filledStore(vfs.NewMem(), 0, "")
			// The fake's own walk over its frames must not choke on the damaged one: it is sent by hand.
			p.script = func(c net.Conn, h wire.Hello) error {
				w := wire.Welcome{Version: wire.Version, Shards: 1, Next: 3, Lineage: p.lineage, Position: h.Position}
				out := wire.AppendWelcome(nil, w)
				var d wire.Digest
				for k, raw := range p.frames {
					if h.Position.Offset <= []uint64{0, 2}[k] {
						out = append(out, raw...)
						d = d.Add(wire.Frame{Raw: raw}.CRC())
					}
				}
				if _, err := c.Write(out); err != nil {
					return err
				}
				for p.beat(c, 3, d) == nil {
					time.Sleep(time.Second)
				}
				return errPrimaryDone
			}
			f := network.follow(store, nil)
			caughtUp(t, f)
			if got := store.shards[0].text(); got != "x\ny\nz\n" {
				t.Fatalf("byte %d: applied %q", i, got)
			}
			if network.dials < 2 || len(p.byes) == 0 || p.byes[0].Text == "" {
				t.Fatalf("byte %d: %d dials, byes %v", i, network.dials, p.byes)
			}
			network.close(f)
		})
	}
}

// TestAsk: what follows soon behind an ack is acked at once only if the primary asks, before or after it has sent that. Each second
// connection is lent.
func TestAsk(t *testing.T) {
	for range 2 {
		synctest.Test(t, func(t *testing.T) {
			p := newFakePrimary(t)
			network := &network{t: t, primaries: []*fakePrimary{p}}
			f := network.follow(filledStore(vfs.NewMem(), 0, ""), nil)
			caughtUp(t, f)
			acked := func() (offset uint64) {
				synctest.Wait() // no time passes
				p.locked(func() { offset = p.acks[len(p.acks)-1].Applied })
				return offset
			}
			time.Sleep(50 * time.Millisecond)
			synctest.Wait()
			p.write("a")
			if got := acked(); got != 1 {
				t.Fatalf("behind a pause a write to 1 was acked up to %d", got)
			}
			p.write("b")
			if got := acked(); got != 1 {
				t.Fatalf("%d is acked, and nobody asked", got)
			}
			p.ask(2)
			if got := acked(); got != 2 {
				t.Fatalf("asked for 2, acked is %d", got)
			}
			p.ask(4)
			p.write("c")
			if got := acked(); got != 2 {
				t.Fatalf("asked for 4, which is not there, and %d is acked", got)
			}
			p.write("d")
			if got := acked(); got != 4 {
				t.Fatalf("asked for 4, acked is %d", got)
			}
			network.close(f)
		})
	}
}

// TestAcks: received, applied and durable are told when there is something to tell, in order, and never ahead of the
// shard (pitfall 21).
func TestAcks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakePrimary(t)
		network := &network{t: t, primaries: []*fakePrimary{p}}
		store := filledStore(vfs.NewMem(), 0, "")
		f := network.follow(store, nil)
		caughtUp(t, f)
		for range 20 {
			p.write("v")
			synctest.Wait()
			p.write("soon behind it")
			time.Sleep(50 * time.Millisecond)
			synctest.Wait()
			p.locked(func() {
				if a := p.acks[len(p.acks)-1]; a.Applied != p.next || a.Received != p.next {
					t.Fatalf("the write to %d was answered by %+v", p.next, a)
				}
			})
		}
		// The applier stands still: acks go on, and say so.
		gate := make(chan struct{})
		store.shards[0].locked(func() { store.shards[0].gate = gate })
		p.write("w")
		time.Sleep(5 * time.Second)
		synctest.Wait() // what happens at this very instant is over
		p.locked(func() {
			if a := p.acks[len(p.acks)-1]; a.Received != 41 || a.Applied != 40 {
				t.Fatalf("ack %+v", a)
			}
		})
		close(gate)
		caughtUp(t, f)
		var last wire.Ack
		for _, a := range p.acksNow() {
			if a.Received < last.Received || a.Applied < last.Applied || a.Durable < last.Durable {
				t.Fatalf("ack %+v behind %+v", a, last)
			}
			last = a
		}
		if lag := f.Lag(); lag != (Lag{Streaming: true}) {
			t.Fatalf("lag %+v", lag)
		}
		network.close(f)
	})
}

// kernelConn is a connection whose bytes a kernel holds, as far as the session knows.
type kernelConn struct{ net.Conn }

func (kernelConn) SetWriteBuffer(int) error { return nil }

// TestReaderAppliesALittle: single writes are applied and acked by the reader, as long as the shard is free; everything else is the
// applier's and the writer's, and the order stays. So it is where the reading is lent, too, and where the connection takes acks in
// pieces.
func TestReaderAppliesALittle(t *testing.T) {
	t.Run("kernel", func(t *testing.T) {
		readerAppliesALittle(t, func(c net.Conn) net.Conn { return kernelConn{c} })
	})
	for _, most := range []int{0, 7} {
		t.Run(fmt.Sprint("lent, at most ", most), func(t *testing.T) {
			var lent *netpolltest.Pipe
			readerAppliesALittle(t, func(c net.Conn) net.Conn {
				p := &netpolltest.Pipe{Conn: c, Most: most}
				if lent == nil {
					lent = p
				}
				return p
			})
			if lent.Served.Load() == 0 || lent.Tried.Load() == 0 {
				t.Fatalf("while the reading was lent it was served %d times, and %d bytes of acks were written", lent.Served.Load(), lent.Tried.Load())
			}
		})
	}
}

func readerAppliesALittle(t *testing.T, adopt func(net.Conn) net.Conn) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakePrimary(t)
		network := &network{t: t, primaries: []*fakePrimary{p}}
		store := filledStore(vfs.NewMem(), 0, "")
		shard := store.shards[0]
		f := network.follow(store, func(o *FollowerOptions) { o.Adopt = adopt })
		caughtUp(t, f)
		var want strings.Builder
		write := func(v string) {
			p.write(v)
			want.WriteString(v + "\n")
		}
		for i := range 30 {
			time.Sleep(time.Millisecond) // the reader finds nothing more and lends its reading
			var gate chan struct{}
			if i%3 == 2 { // somebody is at the shard
				gate = make(chan struct{})
			}
			shard.locked(func() { shard.gate = gate })
			write(fmt.Sprint("small", i))
			synctest.Wait()
			if gate != nil {
				write("behind it")
				synctest.Wait()
				shard.locked(func() { shard.gate = nil })
				close(gate)
			}
			if i%5 == 0 {
				write(strings.Repeat("large", small/4))
			}
			p.ask(p.next) // only this goroutine writes
			synctest.Wait()
			p.locked(func() {
				if a := p.acks[len(p.acks)-1]; a.Applied != p.next || a.Received != p.next {
					t.Fatalf("the write to %d was answered by %+v", p.next, a)
				}
			})
		}
		if got := shard.text(); got != want.String() {
			t.Fatal("not what was written")
		}
		if shard.tried < 20 || shard.tried > 20+10 {
			t.Fatalf("the reader applied %d runs", shard.tried)
		}
		if network.dials != 1 {
			t.Fatalf("%d connections", network.dials)
		}
		// What cannot be applied ends the link, whoever finds it.
		shard.locked(func() { shard.ingestErr = errors.New("no more") })
		write("lost")
		synctest.Wait()
		if l := f.Status()[0].Link; !strings.Contains(l.LastError, "no more") {
			t.Fatalf("last error %q", l.LastError)
		}
		shard.locked(func() { shard.ingestErr = nil })
		caughtUp(t, f)
		if got := shard.text(); got != want.String() {
			t.Fatal("not what was written")
		}
		network.close(f)
	})
}

// TestStuckApplier: the shard stands still for a minute, as under SIGSTOP or a write stall. The inbox fills to its limit
// and no further, the link stays up, and then everything is applied once (pitfalls 32, 38, 39).
func TestStuckApplier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakePrimary(t)
		network := &network{t: t, primaries: []*fakePrimary{p}}
		store := filledStore(vfs.NewMem(), 0, "")
		gate := make(chan struct{})
		store.shards[0].gate = gate
		const limit = 64 << 10
		var want strings.Builder
		for i := range 2000 {
			v := fmt.Sprintf("%04d%s", i, strings.Repeat("x", i%500))
			p.write(v)
			want.WriteString(v + "\n")
		}
		f := network.follow(store, func(o *FollowerOptions) { o.InboxBytes = limit })
		for range 60 {
			time.Sleep(time.Second)
			synctest.Wait() // what happens at this very instant is over
			if l := f.Status()[0].Link; l.InboxBytes > limit || l.State != "streaming" {
				t.Fatalf("inbox %d, state %s", l.InboxBytes, l.State)
			}
		}
		if l := f.Status()[0].Link; l.InboxBytes < limit-1000 || l.LagMutations < 1000 {
			t.Fatalf("inbox %d, lag %d", l.InboxBytes, l.LagMutations)
		}
		close(gate)
		caughtUp(t, f)
		if got := store.shards[0].text(); got != want.String() {
			t.Fatal("not what was written")
		}
		if network.dials != 1 {
			t.Fatalf("%d dials", network.dials)
		}
		network.close(f)
	})
}

// TestFrameLargerThanEverything: one frame larger than inbox and read buffer passes, between small ones (pitfall 29).
func TestFrameLargerThanEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakePrimary(t)
		large := strings.Repeat("large", 1<<20)
		for range 3 {
			p.write("small")
			p.write(large)
		}
		p.write("last")
		network := &network{t: t, primaries: []*fakePrimary{p}}
		store := filledStore(vfs.NewMem(), 0, "")
		f := network.follow(store, func(o *FollowerOptions) { o.InboxBytes = 1000 })
		caughtUp(t, f)
		if got, want := store.shards[0].text(), strings.Repeat("small\n"+large+"\n", 3)+"last\n"; got != want {
			t.Fatalf("%d bytes applied, want %d", len(got), len(want))
		}
		network.close(f)
	})
}

// TestShardErrorEndsItsLinkOnly: the other shard goes on; the link comes back when the shard is well (pitfalls 26, 33).
func TestShardErrorEndsItsLinkOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newFakePrimary(t), newFakePrimary(t)
		a.shards, b.shards, b.shard = 2, 2, 1
		network := &network{t: t, primaries: []*fakePrimary{a, b}}
		store := filledStore(vfs.NewMem(), 0, "")
		other := filledStore(store.fs, 0, "").shards[0]
		other.id = 1
		store.shards = append(store.shards, other)
		f := network.follow(store, nil)
		caughtUp(t, f)
		other.locked(func() { other.ingestErr = fmt.Errorf("write: %w", syscall.ENOSPC) })
		a.write("to a")
		b.write("to b")
		time.Sleep(30 * time.Second)
		synctest.Wait() // what happens at this very instant is over
		s := f.Status()
		if s[0].Offset != 1 || s[0].Link.State != "streaming" {
			t.Fatalf("shard 0: %+v", s[0].Link)
		}
		if s[1].Offset != 0 || s[1].Link.LagMutations != 1 || !strings.Contains(s[1].Link.LastError, "no space left") {
			t.Fatalf("shard 1: %+v", s[1].Link)
		}
		// Pitfall 36: the process lags as its worst shard does.
		if lag := f.Lag(); lag.Mutations != 1 || lag.Millis < 10_000 {
			t.Fatalf("lag %+v", lag)
		}
		for _, ack := range b.acksNow() {
			if ack.Applied > 0 {
				t.Fatalf("ack %+v of what was not applied", ack)
			}
		}
		other.locked(func() { other.ingestErr = nil })
		caughtUp(t, f)
		network.close(f)
	})
}
