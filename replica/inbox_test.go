package replica

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/understudy-kv/understudy/wire"
)

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// randomFrames draws frames of sizes around every limit there is.
func randomFrames(t *rapid.T) (stream []byte, frames [][]byte) {
	var next uint64
	for range rapid.IntRange(1, 30).Draw(t, "frames") {
		size := rapid.SampledFrom([]int{0, 1, 100, 5000, 20_000, smallSlab - 100, smallSlab, ownSlab - 60, ownSlab, 300_000}).Draw(t, "size")
		var b wire.Builder
		b.Reset()
		b.Put([]byte("k"), bytes.Repeat([]byte{byte(next)}, size))
		b.End()
		raw, err := b.Finish(next, 1)
		if err != nil {
			t.Fatal(err)
		}
		next++
		frames = append(frames, bytes.Clone(raw))
		stream = append(stream, raw...)
		if rapid.Bool().Draw(t, "control") {
			raw := wire.AppendControl(nil, wire.KindManifest, make([]byte, size))
			frames = append(frames, raw)
			stream = append(stream, raw...)
		}
	}
	return stream, frames
}

// TestFrameReader: however the bytes arrive, the frames come out as they went in, and lie where their span says.
func TestFrameReader(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		stream, frames := randomFrames(t)
		pieces := rapid.SliceOfN(rapid.IntRange(1, 200_000), 1, 20).Draw(t, "reads")
		i := 0
		src := readerFunc(func(b []byte) (int, error) {
			if len(stream) == 0 {
				return 0, io.EOF
			}
			n := copy(b[:min(len(b), pieces[i%len(pieces)])], stream)
			i, stream = i+1, stream[n:]
			return n, nil
		})
		fr := frameReader{src: src, busy: func() bool { return i%3 == 0 }}
		defer fr.close()
		var held []span
		for k, want := range frames {
			f, at, err := fr.next()
			if err != nil {
				t.Fatalf("frame %d: %v", k, err)
			}
			if !bytes.Equal(f.Raw, want) {
				t.Fatalf("frame %d differs", k)
			}
			if f.Kind == wire.KindMutations {
				at.slab.hold()
				held = append(held, at)
			} else {
				held = append(held, span{})
			}
		}
		for k, at := range held {
			if at.slab != nil && !bytes.Equal(at.slab.b[at.from:at.to], frames[k]) {
				t.Fatalf("frame %d was overwritten while it was held", k)
			}
		}
		if _, _, err := fr.next(); err != io.EOF {
			t.Fatalf("at the end: %v", err)
		}
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// TestFrameReaderBelievesNoLength: a header that promises a gigabyte costs what has arrived, and no more; in the
// handshake it is refused outright (design §9, garbage on the port).
func TestFrameReaderBelievesNoLength(t *testing.T) {
	raw := frameOf(t, 0, strings.Repeat("x", 400<<10))
	header := wire.AppendControl(nil, wire.KindManifest, nil)[:wire.HeaderSize]
	huge := hugeHeader(t)
	for _, c := range []struct {
		name   string
		stream []byte
		limit  uint32
		want   error
	}{
		{"mutations", append(huge, make([]byte, 1<<20)...), 0, io.ErrUnexpectedEOF},
		{"handshake", raw, wire.MaxHandshake, wire.ErrTooLarge},
		{"half a header", header[:20], 0, io.ErrUnexpectedEOF},
		{"http", []byte("HTTP/1.1 400 Bad Request\r\n\r\n"), 0, wire.ErrMagic},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			fr := frameReader{src: iotest.DataErrReader(bytes.NewReader(c.stream)), busy: func() bool { return false }, limit: c.limit}
			_, _, err := fr.next()
			fr.close()
			runtime.ReadMemStats(&after)
			n := after.TotalAlloc - before.TotalAlloc
			if !errors.Is(err, c.want) {
				t.Fatalf("error %v, want %v", err, c.want)
			}
			if n > 6<<20 {
				t.Fatalf("%d bytes allocated for %d that arrived", n, len(c.stream))
			}
		})
	}
}

// hugeHeader is a valid header of a frame of a gigabyte.
func hugeHeader(t *testing.T) []byte {
	raw := frameOf(t, 0, "v")
	h := bytes.Clone(raw[:wire.HeaderSize])
	h[4], h[5], h[6], h[7] = 0, 0, 0, 0x40 // 1 GiB
	crc := wire.Checksum(0, h[:28])
	h[28], h[29], h[30], h[31] = byte(crc), byte(crc>>8), byte(crc>>16), byte(crc>>24)
	if _, err := wire.ParseHeader(h); err != nil {
		t.Fatal(err)
	}
	return h
}

// TestInbox: frames leave in order, each once, in runs that lie together; what is held stays within the limit, but for
// one single frame (pitfalls 29, 30, 38).
func TestInbox(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.SampledFrom([]int64{1, 1000, 70_000, 1 << 20}).Draw(rt, "limit")
		stream, frames := randomFrames(rt)
		pause := rapid.IntRange(0, 5).Draw(rt, "pause")
		synctest.Test(t, func(t *testing.T) {
			waits := 0
			box := newInbox(limit, func(on bool) {
				if on {
					waits++
				} else {
					waits--
				}
			})
			fr := frameReader{src: bytes.NewReader(stream), reserve: box.reserve, busy: box.queued}
			done := make(chan struct{})
			// The producer ends with the stream; the test waits for it.
			go func() {
				defer close(done)
				defer box.close(false)
				for {
					f, at, err := fr.next()
					if err != nil {
						return
					}
					if f.Kind == wire.KindMutations {
						if err := box.put(f, at); err != nil {
							t.Error(err)
						}
					}
				}
			}()
			var got, want []byte
			largest := int64(0)
			for _, f := range frames {
				if f[2] == byte(wire.KindMutations) {
					want = append(want, f...)
					largest = max(largest, int64(len(f)))
				}
			}
			next := uint64(0)
			for n := 0; ; n++ {
				if pause > 0 && n%pause == 0 {
					synctest.Wait() // the producer gets as far as it can
				}
				if held := box.size(); held > max(limit, largest) {
					t.Errorf("%d bytes held, limit %d, largest frame %d", held, limit, largest)
				}
				r, ok := box.take()
				if !ok {
					break
				}
				if r.first != next {
					t.Errorf("a run from %d, want %d", r.first, next)
				}
				next = r.next
				got = append(got, r.frames()...)
				box.release(r)
			}
			<-done
			fr.close()
			if !bytes.Equal(got, want) {
				t.Error("not what went in")
			}
			if waits != 0 || box.size() != 0 {
				t.Errorf("%d still wait, %d bytes held", waits, box.size())
			}
		})
	})
}

// TestInboxSmall: the reader gets one small run that nobody else is at, and otherwise the applier hears of it.
func TestInboxSmall(t *testing.T) {
	box := newInbox(1<<20, func(bool) {})
	next := uint64(0)
	put := func(size int) {
		t.Helper()
		raw := frameOf(t, next, strings.Repeat("v", size))
		next++
		f, err := wire.ParseFrame(raw)
		if err != nil {
			t.Fatal(err)
		}
		s := &slab{b: raw}
		s.refs.Store(1)
		if err := box.put(f, span{slab: s, to: len(raw)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := box.takeSmall(); ok {
		t.Fatal("took from an empty inbox")
	}
	put(10)
	a, ok := box.takeSmall()
	if !ok || a.first != 0 || a.next != 1 {
		t.Fatalf("took %v, %v", a, ok)
	}
	put(10)
	if _, ok := box.takeSmall(); ok {
		t.Fatal("took a second run while one was out")
	}
	box.release(a)
	b, ok := box.takeSmall()
	if !ok || b.first != 1 {
		t.Fatalf("took %v, %v", b, ok)
	}
	box.giveBack(b)
	if c, ok := box.take(); !ok || c.first != 1 {
		t.Fatalf("took %v, %v behind giveBack", c, ok)
	}
	if _, ok := box.takeSmall(); ok {
		t.Fatal("took beside the applier")
	}
	box.release(b)
	put(small)
	if _, ok := box.takeSmall(); ok {
		t.Fatal("took a large run")
	}
	c, _ := box.take()
	box.release(c)
	put(10)
	put(10) // slabs of their own: no run of one piece
	if _, ok := box.takeSmall(); ok {
		t.Fatal("took one of two runs")
	}
	box.close(false)
	for i := uint64(3); i < 5; i++ {
		if r, ok := box.take(); !ok || r.first != i {
			t.Fatalf("took %v, %v", r, ok)
		} else {
			box.release(r)
		}
	}
	if box.size() != 0 {
		t.Fatalf("%d bytes held", box.size())
	}
}

// TestInboxClose: who waits for room is sent away, and what was queued leaves or is dropped.
func TestInboxClose(t *testing.T) {
	for _, drop := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			box := newInbox(50, func(bool) {})
			raw := frameOf(t, 0, "v")
			f, err := wire.ParseFrame(raw)
			if err != nil {
				t.Fatal(err)
			}
			s := &slab{b: raw}
			s.refs.Store(1)
			if err := box.put(f, span{slab: s, to: len(raw)}); err != nil {
				t.Fatal(err)
			}
			sent := make(chan error)
			// It waits for room until the inbox is closed.
			go func() { sent <- box.reserve(100) }()
			synctest.Wait()
			box.close(drop)
			if err := <-sent; !errors.Is(err, errInboxClosed) {
				t.Fatalf("error %v", err)
			}
			if _, ok := box.take(); ok == drop {
				t.Fatalf("took %v after a close with drop %v", ok, drop)
			}
		})
	}
}
