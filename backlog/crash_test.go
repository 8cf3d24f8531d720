package backlog

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// history is a script of what a shard does with its log, and the twin of it. The frames are in the twin before they
// are appended, so that a crash in the middle of an append is judged right.
type history struct {
	o    Options
	l    *Log
	w    *twin
	rng  *rand.Rand
	need uint64 // recovery was told to need no more than this
}

func newHistory(o Options, seed uint64) *history {
	return &history{o: o, w: &twin{bounds: []uint64{7}, published: 7}, rng: rand.New(rand.NewPCG(seed, 1)), need: 7}
}

// step does one thing. An error of it changes nothing in the twin.
func (h *history) step() error {
	switch n := h.rng.IntN(20); {
	case h.l == nil:
		var err error
		h.l, err = Create(h.o, 7)
		return err
	case n < 12:
		var batch []byte
		w, first := *h.w, h.w.next()
		for range 1 + h.rng.IntN(3) {
			f := build(h.w.next(), 1+h.rng.IntN(3), []int{10, 300, 1500, 9000}[h.rng.IntN(4)])
			batch = append(batch, f...)
			h.w.frames = append(h.w.frames, f)
			h.w.bounds = append(h.w.bounds, h.w.next()+uint64(f[24]))
		}
		if err := h.l.Append(batch, first, h.w.next()); err != nil {
			*h.w = w
			return err
		}
		h.l.Publish(h.w.next())
	case n < 16:
		return h.l.Sync()
	case n < 18:
		if at := h.l.Durable(); at > h.need {
			h.need = at
		}
		h.l.Trim(h.need, 0, false)
	default:
		err := h.l.Close()
		if err == nil {
			var l *Log
			if l, err = Open(h.o); err == nil {
				h.l = l
			}
		}
		return err
	}
	return nil
}

// verify checks that a log holds a prefix of what was appended, at least up to promised, from where recovery needs it,
// and that it can go on.
func (h *history) verify(t *testing.T, o Options, promised, need uint64) {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	check(t, l)
	b := l.Bounds()
	if b.Next < promised || b.Oldest > need || b.Durable != b.Next || b.Next != l.Recovered().Next {
		t.Fatalf("recovered %+v, promised up to %d, recovery needs it from %d", b, promised, need)
	}
	want, ok := h.w.from(b.Oldest, b.Next)
	if !ok {
		t.Fatalf("recovered [%d, %d), which are no boundaries", b.Oldest, b.Next)
	}
	if got := drain(t, l, b.Oldest, 4000); !bytes.Equal(got, want) {
		t.Fatalf("recovered other bytes in [%d, %d)", b.Oldest, b.Next)
	}
	more := add(t, l, 2, 5000)
	if got := drain(t, l, b.Oldest, 4000); !bytes.Equal(got, append(want, more...)) {
		t.Fatalf("went on with other bytes behind %d", b.Next)
	}
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
}

// At every file operation, and between them, the machine may die: with none, some or all of what was not synced. What
// recovers is a prefix of what was appended, never less than what Sync returned for, also when the machine dies again
// right after the recovery; and a process that is only killed loses nothing at all.
func TestCrash(t *testing.T) {
	seeds := uint64(4)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		fs := vfs.NewCrashableMem()
		h := newHistory(Options{}, seed)
		ops, crashes := 0, 0
		rng := rand.New(rand.NewPCG(seed, 2))
		crash := func() {
			promised, need, appended := uint64(0), uint64(7), uint64(0)
			if h.l != nil {
				promised, need, appended = h.l.Durable(), h.l.Bounds().Oldest, h.l.Next()
			}
			for _, percent := range []int{0, 50, 100} {
				clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
				o := options(clone)
				if h.l == nil { // Create has not returned
					continue
				}
				o.PowerLost = true
				crashes++
				h.verify(t, o, promised, need)
				again := options(clone.CrashClone(vfs.CrashCloneCfg{}))
				again.PowerLost = true
				l, err := Open(again)
				if err != nil || l.Next() < promised+2 {
					t.Fatalf("after a second crash: %v", err)
				}
				l.Close()
				if percent == 100 {
					killed := options(fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng}))
					h.verify(t, killed, appended, need)
				}
			}
		}
		every := 2 + 2*int(seed)
		if testing.Short() {
			every = 7
		}
		var mu sync.Mutex // recovery reads segments side by side
		h.o = options(errorfs.Wrap(fs, errorfs.InjectorFunc(func(errorfs.Op) error {
			mu.Lock()
			defer mu.Unlock()
			if ops++; ops%every == 0 {
				crash()
			}
			return nil
		})))
		for range 50 {
			if err := h.step(); err != nil {
				t.Fatal(err)
			}
			crash()
		}
		if err := h.l.Close(); err != nil {
			t.Fatal(err)
		}
		t.Logf("seed %d: %d operations, %d crashes, offset %d", seed, ops, crashes, h.w.next())
	}
}

// Each file operation in turn fails, alone or with the two behind it. A call that failed can be made again and leaves
// the log as it was; a log that is broken says so and opens with everything that was appended.
func TestFaultSweep(t *testing.T) {
	widths := map[int]uint64{1: 2, 3: 1}
	if testing.Short() {
		widths = map[int]uint64{3: 1}
	}
	for width, seeds := range widths {
		for seed := range seeds {
			failed := 0
			step := 1
			if testing.Short() {
				step = 3 // which is every operation, as width is
			}
			for i := 0; ; i += step {
				hit := sweep(t, seed, i, width)
				if !hit {
					t.Logf("seed %d, %d at once: clean after %d operations, %d of them failed", seed, width, i, failed)
					break
				}
				failed++
			}
		}
	}
}

// sweep runs one history in which the operations [at, at+width) fail, and reports whether there were any.
func sweep(t *testing.T, seed uint64, at, width int) (hit bool) {
	mem := vfs.NewMem()
	var mu sync.Mutex // recovery reads segments side by side
	count := 0
	done := func() int {
		mu.Lock()
		defer mu.Unlock()
		return count
	}
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		count++
		if count > at && count <= at+width {
			hit = true
			return errorfs.ErrInjected
		}
		return nil
	}))
	h := newHistory(options(fs), seed)
	for i := 0; i < 30; i++ {
		err := h.step()
		if err == nil {
			continue
		}
		if !hit {
			t.Fatalf("operation %d of seed %d: step %d failed by itself: %v", at, seed, i, err)
		}
		if h.l == nil { // Create may leave what it made, and says so when it is tried again
			if err := mem.RemoveAll("log"); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if l := h.l; l.failed() == nil {
			check(t, l)
			if l.Next() != h.w.next() {
				t.Fatalf("operation %d of seed %d: after %v the log ends at %d, want %d", at, seed, err, l.Next(), h.w.next())
			}
			continue
		}
		h.l.Close()
		for {
			before := done()
			if h.l, err = Open(h.o); err == nil {
				break
			}
			if before >= at+width {
				t.Fatalf("operation %d of seed %d: cannot be opened again: %v", at, seed, err)
			}
		}
		if h.l.Next() != h.w.next() {
			t.Fatalf("operation %d of seed %d: opened at %d, want %d", at, seed, h.l.Next(), h.w.next())
		}
	}
	oldest := h.l.Bounds().Oldest
	want, _ := h.w.from(oldest, h.w.next())
	got, err := readAll(h.l, oldest)
	for err != nil && done() < at+width {
		got, err = readAll(h.l, oldest) // an error of reading is final for its reader only
	}
	if err != nil && hit {
		got, err = readAll(h.l, oldest)
	}
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("operation %d of seed %d: read %d bytes, want %d: %v", at, seed, len(got), len(want), err)
	}
	if err := h.l.Close(); err != nil {
		t.Fatal(err)
	}
	h.verify(t, options(mem), h.w.next(), oldest)
	return hit
}

func readAll(l *Log, from uint64) ([]byte, error) {
	r, err := l.NewReader(from)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return drainReader(r, l.Published(), 3000)
}
