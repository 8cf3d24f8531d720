package backlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/understudy-kv/understudy/wire"
)

// twin is what a log is, without files, slabs or bounds: every frame ever appended.
type twin struct {
	frames    [][]byte
	bounds    []uint64 // bounds[i] is where frames[i] begins; the last one is Next
	published uint64
}

func (w *twin) next() uint64 { return w.bounds[len(w.bounds)-1] }

// from is the bytes of the frames in [offset, upto), or false if either is no boundary.
func (w *twin) from(offset, upto uint64) ([]byte, bool) {
	i, ok := slices.BinarySearch(w.bounds, offset)
	j, ok2 := slices.BinarySearch(w.bounds, upto)
	if !ok || !ok2 || j < i {
		return nil, false
	}
	return bytes.Join(w.frames[i:j], nil), true
}

// follower is a reader that reads on now and then, and what it must have read.
type follower struct {
	r    *Reader
	from uint64
	got  []byte
	seen stream
}

// Random histories of appends, publishes, reads, trims, syncs, reopens and kills, against the twin (pitfalls 8, 29, 30).
func TestTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := options(vfs.NewMem())
		o.Memory = rapid.SampledFrom([]int64{4 << 10, 16 << 10, 64 << 10}).Draw(t, "memory")
		first := rapid.SampledFrom([]uint64{0, 1, 1000, 1 << 40}).Draw(t, "first")
		l, err := Create(o, first)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { l.Close() }()
		m := &machine{o: o, l: l, w: &twin{bounds: []uint64{first}, published: first}}
		defer m.closeReaders()
		t.Repeat(map[string]func(*rapid.T){
			"":        m.check,
			"append":  m.append,
			"publish": m.publish,
			"read":    m.read,
			"reader":  m.reader,
			"trim":    m.trim,
			"sync":    m.sync,
			"reopen":  m.reopen,
		})
	})
}

type machine struct {
	o         Options
	l         *Log
	w         *twin
	followers []*follower
}

func (m *machine) append(t *rapid.T) {
	var batch []byte
	first := m.w.next()
	for range rapid.IntRange(1, 4).Draw(t, "frames") {
		at := m.w.next()
		count := rapid.IntRange(1, 5).Draw(t, "count")
		size := rapid.SampledFrom([]int{0, 1, 30, 200, 900, 1100, 5000, 20000}).Draw(t, "size") / count
		f := build(at, count, size)
		batch = append(batch, f...)
		m.w.frames = append(m.w.frames, f)
		m.w.bounds = append(m.w.bounds, at+uint64(count))
	}
	if err := m.l.Append(batch, first, m.w.next()); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) publish(t *rapid.T) {
	var ahead []uint64
	for _, b := range m.w.bounds {
		if b >= m.w.published {
			ahead = append(ahead, b)
		}
	}
	m.w.published = rapid.SampledFrom(ahead).Draw(t, "upto")
	m.l.Publish(m.w.published)
}

// read moves one follower on by some runs. It must not wait: it stops at what is published.
func (m *machine) read(t *rapid.T) {
	if len(m.followers) == 0 {
		t.Skip("no reader")
	}
	i := rapid.IntRange(0, len(m.followers)-1).Draw(t, "reader")
	f := m.followers[i]
	limit := rapid.SampledFrom([]int{0, 512, 700, 3000, 100000}).Draw(t, "limit")
	for range rapid.IntRange(1, 5).Draw(t, "runs") {
		if f.r.frame.left == 0 && f.r.next == m.w.published {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			if _, err := f.r.Next(ctx, limit); !errors.Is(err, context.Canceled) {
				t.Fatalf("a reader at the end: %v", err)
			}
			return
		}
		run, err := f.r.Next(context.Background(), limit)
		if errors.Is(err, ErrEvicted) && f.r.next < m.l.Bounds().Oldest {
			f.r.Close()
			m.followers = slices.Delete(m.followers, i, i+1)
			return
		}
		if err == nil {
			err = f.seen.add(run, limit)
		}
		if err != nil {
			t.Fatal(err)
		}
		f.got = append(f.got, run.Bytes...)
		if run.Next > m.w.published {
			t.Fatalf("read up to %d, published is %d", run.Next, m.w.published)
		}
		if want, ok := m.w.from(f.from, run.Next); !ok || !bytes.HasPrefix(f.got, want) || run.Boundary && len(f.got) != len(want) {
			t.Fatalf("read %d bytes from %d up to %d, want %d", len(f.got), f.from, run.Next, len(want))
		}
	}
}

func (m *machine) reader(t *rapid.T) {
	oldest := m.l.Bounds().Oldest
	from := rapid.Uint64Range(max(m.w.bounds[0], 3)-3, m.w.next()+3).Draw(t, "from")
	if rapid.Bool().Draw(t, "boundary") {
		from = rapid.SampledFrom(m.w.bounds).Draw(t, "from bound")
	}
	_, aligned := slices.BinarySearch(m.w.bounds, from)
	var want error
	switch {
	case from < oldest:
		want = ErrEvicted
	case from > m.w.published:
		want = ErrFuture
	case !aligned:
		want = ErrMisaligned
	}
	r, err := m.l.NewReader(from)
	if !errors.Is(err, want) {
		t.Fatalf("NewReader(%d): %v, want %v", from, err, want)
	}
	ok, err := m.l.Boundary(from)
	if ok != (want == nil) || want != ErrMisaligned && !errors.Is(err, want) || want == ErrMisaligned && err != nil {
		t.Fatalf("Boundary(%d): %t, %v, want %v", from, ok, err, want)
	}
	if r != nil {
		m.followers = append(m.followers, &follower{r: r, from: from})
	}
	if want == nil {
		at := from
		err := m.l.Replay(from, func(f wire.Frame) error {
			i, ok := slices.BinarySearch(m.w.bounds, at)
			if !ok || !bytes.Equal(f.Raw, m.w.frames[i]) {
				return fmt.Errorf("replayed another frame at %d", at)
			}
			at = f.Next()
			return nil
		})
		if err != nil || at != m.w.published {
			t.Fatalf("replayed up to %d of %d: %v", at, m.w.published, err)
		}
	}
}

func (m *machine) trim(t *rapid.T) {
	recovery := rapid.SampledFrom(m.w.bounds).Draw(t, "recovery")
	slots := rapid.SampledFrom(m.w.bounds).Draw(t, "slots")
	hasSlots := rapid.Bool().Draw(t, "hasSlots")
	if err := m.l.SetLimits(rapid.Int64Range(0, 20<<10).Draw(t, "keep"), rapid.Int64Range(20<<10, 80<<10).Draw(t, "disk")); err != nil {
		t.Fatal(err)
	}
	before := m.l.Bounds()
	m.l.Trim(recovery, slots, hasSlots)
	if b := m.l.Bounds(); b.Oldest > before.Oldest && b.Oldest > min(recovery, m.w.published) {
		t.Fatalf("trimmed up to %d, recovery needs %d", b.Oldest, recovery)
	}
}

func (m *machine) sync(t *rapid.T) {
	if err := m.l.Sync(); err != nil || m.l.Durable() != m.w.next() {
		t.Fatalf("%v: durable %d, want %d", err, m.l.Durable(), m.w.next())
	}
}

// reopen is a clean stop, or a kill in the middle of an append.
func (m *machine) reopen(t *rapid.T) {
	oldest := m.l.Bounds().Oldest
	path := m.l.appending.active.path
	size := m.l.appending.active.size
	m.closeReaders()
	if err := m.l.Close(); err != nil {
		t.Fatal(err)
	}
	torn := build(m.w.next(), 3, 300)
	if n := rapid.IntRange(0, len(torn)-1).Draw(t, "torn"); n > 0 {
		f, err := m.o.FS.OpenReadWrite(path, category)
		if err == nil {
			_, err = f.WriteAt(torn[:n], size)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if m.l, err = Open(m.o); err != nil {
		t.Fatal(err)
	}
	m.w.published = m.w.next()
	if b := m.l.Bounds(); b.Oldest != oldest || b.Next != m.w.next() || b.Durable != b.Next || b.Published != b.Next || b.MemoryFirst != b.Next {
		t.Fatalf("reopened as %+v, want [%d, %d)", b, oldest, m.w.next())
	}
}

func (m *machine) closeReaders() {
	for _, f := range m.followers {
		f.r.Close()
	}
	m.followers = nil
}

func (m *machine) check(t *rapid.T) {
	m.l.mu.Lock()
	err := m.l.check()
	pins := 0
	for _, s := range m.l.mu.segments {
		pins += s.pins
	}
	m.l.mu.Unlock()
	if err != nil || pins != 0 {
		t.Fatalf("%v; %d pins", err, pins)
	}
	b := m.l.Bounds()
	if b.Next != m.w.next() || b.Published != m.w.published || b.MemoryBytes > m.o.Memory || b.Oldest > b.MemoryFirst || b.MemoryFirst > b.Next {
		t.Fatalf("bounds are %+v, want next %d, published %d", b, m.w.next(), m.w.published)
	}
	for _, at := range []uint64{b.Oldest, b.Published, b.MemoryFirst} {
		want, ok := m.w.from(at, b.Next)
		if got := m.l.BytesFrom(at); !ok || got < int64(len(want)) || got >= int64(len(want))+64<<10 {
			t.Fatalf("%d bytes from %d, want %d", got, at, len(want))
		}
	}
}

// build is frame without a test to fail.
func build(first uint64, count, size int) []byte {
	var b wire.Builder
	b.Reset()
	for i := range count {
		b.Put([]byte{'k', byte(i)}, bytes.Repeat([]byte{byte(first), byte(i), 0x55, 0xD1, 1}, size/5))
		b.End()
	}
	raw, err := b.Finish(first, int64(first)*1000)
	if err != nil {
		panic(err)
	}
	return bytes.Clone(raw)
}
