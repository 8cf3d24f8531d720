package backlog

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func newReader(t testing.TB, l *Log, from uint64) *Reader {
	t.Helper()
	r, err := l.NewReader(from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// Slow readers that stand still on a slab each never make the log hold more memory than it may, not even when they pin
// all of it: then new frames are served from the disk until they let go (pitfall 38).
func TestPinnedMemoryIsBounded(t *testing.T) {
	o := options(vfs.NewMem())
	l := create(t, o, 0)
	ctx := t.Context()
	var pinned []*Reader
	var held [][]byte
	var want []byte
	for i := range 40 {
		r := newReader(t, l, l.Next())
		f := add(t, l, 1, 3000) // one frame a slab
		want = append(want, f...)
		run, err := r.Next(ctx, 0)
		if err != nil || !bytes.Equal(run.Bytes, f) {
			t.Fatalf("frame %d: %v", i, err)
		}
		pinned, held = append(pinned, r), append(held, run.Bytes)
		check(t, l)
		if b := l.Bounds(); b.MemoryBytes > o.Memory {
			t.Fatalf("%d bytes of slabs, at most %d", b.MemoryBytes, o.Memory)
		}
	}
	if b := l.Bounds(); b.MemoryFirst != b.Next {
		t.Fatalf("all slabs are pinned, and memory begins at %d of %d", b.MemoryFirst, b.Next)
	}
	if got := bytes.Join(held, nil); !bytes.Equal(got, want) {
		t.Fatal("what a reader holds was overwritten")
	}
	if got := drain(t, l, 0, 0); !bytes.Equal(got, want) {
		t.Fatal("the disk has other bytes")
	}
	pinned[0].Close()
	add(t, l, 1, 100)
	if b := l.Bounds(); b.MemoryFirst >= b.Next {
		t.Fatal("a slab is free again, and memory stays empty")
	}
	check(t, l)
}

// The window moves on so that it begins exactly at the offset at which a reader resumes; and one frame further, so that
// the reader gets its frame from the disk and the rest from memory (pitfall 30).
func TestWrapAtResumeOffset(t *testing.T) {
	for _, behind := range []uint64{0, 1} {
		l := create(t, options(vfs.NewMem()), 0)
		for range 20 {
			add(t, l, 1, 3000)
		}
		from := l.Bounds().MemoryFirst
		want := drain(t, l, from, 0)
		r := newReader(t, l, from)
		for range behind {
			want = append(want, add(t, l, 1, 3000)...)
		}
		if first := l.Bounds().MemoryFirst; first != from+behind {
			t.Fatalf("memory begins at %d, want %d", first, from+behind)
		}
		run, err := r.Next(t.Context(), 3500)
		if err != nil || (r.memory.slab == nil) != (behind > 0) {
			t.Fatalf("%v; read from memory: %t", err, r.memory.slab != nil)
		}
		got := bytes.Clone(run.Bytes)
		rest, err := drainRest(r, l.Published(), 3500)
		if got = append(got, rest...); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%v: %d bytes, want %d", err, len(got), len(want))
		}
		if r.memory.slab == nil || r.disk.segment != nil {
			t.Fatal("the reader has not joined memory")
		}
	}
}

// drainRest reads on without checking digests, which began earlier.
func drainRest(r *Reader, upto uint64, limit int) (out []byte, err error) {
	for r.next < upto {
		run, err := r.Next(context.Background(), limit)
		if err != nil {
			return out, err
		}
		out = append(out, run.Bytes...)
	}
	return out, nil
}

// A frame larger than every slab, run and segment is served from the disk in pieces, and the reader is back in memory
// behind it; one that fits in a slab but not in a run is served from memory in pieces, also when the slab leaves the
// window in the middle of it (pitfalls 29 and 30).
func TestPieces(t *testing.T) {
	l := create(t, options(vfs.NewMem()), 0)
	r := newReader(t, l, 0)
	step := func(wantMemory, wantBoundary bool, limit int) []byte {
		t.Helper()
		run, err := r.Next(t.Context(), limit)
		if err != nil || run.Boundary != wantBoundary || (r.memory.slab != nil) != wantMemory {
			t.Fatalf("%v; boundary %t, memory %t", err, run.Boundary, r.memory.slab != nil)
		}
		return bytes.Clone(run.Bytes)
	}
	big := add(t, l, 2, 10000)
	small := add(t, l, 1, 10)
	got := step(false, false, 15000)
	got = append(got, step(false, true, 15000)...)
	if !bytes.Equal(got, big) || r.next != 2 {
		t.Fatal("the large frame came out wrong")
	}
	if got := step(true, true, 15000); !bytes.Equal(got, small) {
		t.Fatal("the small frame came out wrong")
	}
	medium := add(t, l, 1, 3000)
	got = step(true, false, 1000)
	for range 20 {
		add(t, l, 1, 3000)
		check(t, l)
	}
	got = append(got, step(true, false, 1000)...)
	got = append(got, step(true, false, 1000)...)
	got = append(got, step(true, true, 1000)...)
	if !bytes.Equal(got, medium) {
		t.Fatal("the frame in pieces came out wrong")
	}
	step(false, true, 5000) // what follows has left memory meanwhile
	check(t, l)
	r.Close()
	check(t, l)
	if _, err := r.Next(t.Context(), 0); !errors.Is(err, ErrClosed) {
		t.Fatalf("a closed reader: %v", err)
	}
}

// A run never tears a frame's checksum apart, whatever its size.
func TestPieceSizes(t *testing.T) {
	o := options(vfs.NewMem())
	o.Memory = minMemory
	l := create(t, o, 0)
	var want []byte
	for i := range 12 {
		want = append(want, add(t, l, 1, 1500+i)...)
	}
	for limit := 512; limit < 530; limit++ {
		if got := drain(t, l, 0, limit); !bytes.Equal(got, want) {
			t.Fatalf("runs of %d bytes came out wrong", limit)
		}
	}
}

// The cap beats a reader: its file is closed and deleted under it, and it is told.
func TestReaderEvicted(t *testing.T) {
	mem := vfs.NewMem()
	o := options(mem)
	l := create(t, o, 0)
	add(t, l, 1, 9000)
	for range 30 {
		add(t, l, 1, 3000)
	}
	whole, middle := newReader(t, l, 1), newReader(t, l, 0)
	for _, r := range []*Reader{whole, middle} {
		if _, err := r.Next(t.Context(), 4000); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	l.Trim(l.Next(), 0, true) // the cap
	b := l.Bounds()
	if b.Bytes > o.Disk || b.Oldest <= 2 {
		t.Fatalf("bounds are %+v after the trim", b)
	}
	for name, r := range map[string]*Reader{"between frames": whole, "in a frame": middle} {
		for range 2 { // and it stays so
			if _, err := r.Next(t.Context(), 4000); !errors.Is(err, ErrEvicted) {
				t.Errorf("a reader %s: %v", name, err)
			}
		}
	}
	if _, err := l.NewReader(1); !errors.Is(err, ErrEvicted) {
		t.Errorf("a new reader: %v", err)
	}
	if names, _ := mem.List("log"); len(names) != len(l.mu.segments)+1 {
		t.Errorf("files left: %v", names)
	}
	check(t, l)
}

// A waiting reader is woken by Publish, not by Append, by its context, and by Close; and gives up without a trace.
func TestReaderWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := Create(options(vfs.NewMem()), 0)
		if err != nil {
			t.Fatal(err)
		}
		r := newReader(t, l, 0)
		type result struct {
			run Run
			err error
		}
		done := make(chan result)
		// Started by next below; owns the reader until it sends; the test receives.
		next := func(ctx context.Context) {
			go func() { run, err := r.Next(ctx, 0); done <- result{run, err} }()
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		next(ctx)
		if err := l.Append(build(0, 1, 10), 0, 1); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		select {
		case got := <-done:
			t.Fatalf("woken by an append: %+v", got)
		default:
		}
		if got := <-done; !errors.Is(got.err, context.DeadlineExceeded) || len(l.mu.waiting) != 0 {
			t.Fatalf("%v, %d waiting", got.err, len(l.mu.waiting))
		}
		next(t.Context())
		l.Publish(1)
		if got := <-done; got.err != nil || got.run.Next != 1 {
			t.Fatalf("after Publish: %+v", got)
		}
		next(t.Context())
		l.Close()
		if got := <-done; !errors.Is(got.err, ErrClosed) {
			t.Fatalf("after Close: %v", got.err)
		}
	})
}

// One appender, readers of every speed, a syncer and a trimmer at once; each reader gets the same bytes.
func TestConcurrent(t *testing.T) {
	o := options(vfs.NewMem())
	o.Keep, o.Disk = 1<<20, 8<<20
	l := create(t, o, 0)
	const frames = 1500
	var all bytes.Buffer
	for i, at := 0, uint64(0); i < frames; i++ {
		f := build(at, 1+i%3, []int{20, 500, 3000, 50, 6000}[i%5])
		all.Write(f)
		at += uint64(1 + i%3)
	}
	total := uint64(0)
	for i := range frames {
		total += uint64(1 + i%3)
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for i := range 5 {
		r := newReader(t, l, 0)
		// Started here; owns its reader; ends when it has read everything; the test waits below.
		wg.Go(func() {
			got, err := drainReader(r, total, []int{512, 900, 4000, 20000, defaultRun}[i])
			if err != nil || !bytes.Equal(got, all.Bytes()) {
				t.Errorf("reader %d: %v, %d bytes, want %d", i, err, len(got), all.Len())
			}
		})
	}
	var background sync.WaitGroup
	for range 2 {
		// Started here; ends when stop is closed; the test waits below.
		background.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				before := l.Next()
				if err := l.Sync(); err != nil || l.Durable() < before {
					t.Errorf("sync: %v", err)
				}
				l.Trim(l.Durable(), 0, true)
				if b := l.Bounds(); b.MemoryBytes > o.Memory || b.Oldest > b.Published {
					t.Errorf("bounds %+v", b)
				}
				l.BytesFrom(l.Bounds().Oldest)
			}
		})
	}
	rest := all.Bytes()
	for i, at := 0, uint64(0); i < frames; i++ {
		n := len(build(at, 1+i%3, []int{20, 500, 3000, 50, 6000}[i%5]))
		next := at + uint64(1+i%3)
		if err := l.Append(rest[:n], at, next); err != nil {
			t.Fatal(err)
		}
		l.Publish(next)
		rest, at = rest[n:], next
	}
	wg.Wait()
	close(stop)
	background.Wait()
	check(t, l)
}
