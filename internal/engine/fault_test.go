package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/understudy-kv/understudy/wire"
)

// faults collects what OnError is told.
type faults struct {
	mu  sync.Mutex
	all []*Fault
}

func (f *faults) add(err error) {
	var fault *Fault
	if !errors.As(err, &fault) {
		panic(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, fault)
}

func (f *faults) permanent() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range f.all {
		if x.Permanent {
			n++
		}
	}
	return n
}

func (f *faults) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.all)
}

// eventually waits for a condition, with a deadline.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

// fill applies about n bytes of data, in keys that begin with prefix.
func (r *rig) fill(prefix string, n int) error {
	v := strings.Repeat("v", 1000)
	for i := 0; n > 0; i++ {
		r.set(fmt.Sprint(prefix, i), v)
		if n -= len(v); i%16 == 15 || n <= 0 {
			b := r.batch()
			if err := r.apply(b); err != nil {
				r.next = b.First
				r.begin()
				return err
			}
			r.begin()
		}
	}
	return nil
}

// Nothing becomes durable before BeforeFlush has succeeded: while it fails nothing does, Flush says why, writes are
// refused, and when it succeeds again all goes on.
func TestBeforeFlush(t *testing.T) {
	broken := errors.New("the log cannot be synced")
	var fail atomic.Bool
	var calls atomic.Int64
	var f faults
	r := newRig(t, vfs.NewMem(), Options{OnError: f.add, BeforeFlush: func() error {
		calls.Add(1)
		if fail.Load() {
			return broken
		}
		return nil
	}})
	r.set("a", "1")
	r.commit()
	r.must(r.e.Flush())
	if calls.Load() == 0 {
		t.Fatal("a flush did not call BeforeFlush: does Pebble label a flush's tables otherwise now?")
	}
	fail.Store(true)
	r.set("b", "2")
	r.commit()
	if err := r.e.Flush(); !errors.Is(err, ErrStalled) || !errors.Is(err, broken) {
		t.Fatalf("flush: %v, want it stalled by the log", err)
	}
	if d, _ := r.e.Durable(); d != 1 {
		t.Fatalf("durable is %d, want 1", d)
	}
	if err := r.e.Err(); !errors.Is(err, ErrStalled) {
		t.Fatalf("err is %v", err)
	}
	r.set("c", "3")
	b := r.batch()
	if err := r.apply(b); !errors.Is(err, ErrStalled) {
		t.Fatalf("apply: %v, want it refused", err)
	}
	r.want("b", "2") // reads go on
	fail.Store(false)
	eventually(t, "writes to be taken again", func() bool { return r.e.Err() == nil })
	r.must(r.apply(b)) // the refused batch, again
	r.begin()
	r.want("c", "3")
	r.must(r.e.Flush())
	if d, _ := r.e.Durable(); d != 3 {
		t.Fatalf("durable is %d, want 3", d)
	}
	if f.permanent() != 0 || f.count() == 0 {
		t.Fatalf("faults %v, want some and none permanent", f.all)
	}
}

// A full disk refuses writes and says so, however long it lasts, without spinning; with room again all goes on.
func TestDiskFull(t *testing.T) {
	var full atomic.Bool
	var tried atomic.Int64
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && strings.HasSuffix(op.Path, ".sst") && op.Kind == errorfs.OpFileWrite {
			tried.Add(1)
			return syscall.ENOSPC
		}
		return nil
	}))
	var f faults
	r := newRig(t, fs, Options{Tuning: Tuning{Logged: 1 << 30}, MemTableSize: 256 << 10, OnError: f.add})
	full.Store(true)
	var err error
	round := 0
	eventually(t, "a full disk to refuse writes", func() bool {
		round++
		err = r.fill(fmt.Sprint("x", round, "-"), 100_000)
		return err != nil
	})
	if !errors.Is(err, ErrStalled) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("apply: %v, want a full disk", err)
	}
	before := tried.Load()
	eventually(t, "two more attempts", func() bool { return tried.Load() >= before+2 })
	full.Store(false)
	eventually(t, "writes to be taken again", func() bool { return r.e.Err() == nil })
	r.must(r.fill("y", 100_000))
	r.must(r.e.Flush())
	if f.permanent() != 0 {
		t.Fatalf("a full disk fenced the engine: %v", f.all)
	}
}

// Closing works in the middle of all that.
func TestCloseWhileStalled(t *testing.T) {
	r := newRig(t, vfs.NewMem(), Options{BeforeFlush: func() error { return errors.New("never") }})
	r.set("a", "1")
	r.commit()
	if err := r.e.Flush(); !errors.Is(err, ErrStalled) {
		t.Fatal(err)
	}
	r.must(r.e.Close())
	if err := r.e.Flush(); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if err := r.e.Apply(wire.Batch{}); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

// TestManifestFailure fails the i-th operation on a manifest, for i = 1, 2, ... until a run finishes clean. The engine
// is fenced, says so once, still reads, closes, and what is on disk afterwards opens at a durable position: the fence
// keeps Pebble from deleting tables that the manifest may name. Pitfall 33.
func TestManifestFailure(t *testing.T) {
	if !apart(t) {
		return
	}
	for i := int64(1); ; i++ {
		mem := vfs.NewCrashableMem()
		var armed atomic.Bool
		var n atomic.Int64
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if armed.Load() && strings.Contains(op.Path, "MANIFEST") && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose && n.Add(1) >= i {
				return syscall.EIO
			}
			return nil
		}))
		var f faults
		r := &rig{t: t, now: 1000}
		r.open("e", Options{FS: fs, Tuning: Tuning{Logged: 1 << 30}, MemTableSize: 256 << 10, OnError: f.add})
		r.set("first", "1")
		r.commit()
		r.must(r.e.Flush())
		armed.Store(true)
		var err error
		for k := 0; k < 6 && err == nil; k++ {
			if err = r.fill(fmt.Sprint("k", k, "-"), 300_000); err == nil {
				err = r.e.Flush()
			}
		}
		hit := n.Load() >= i
		r.begin()
		if hit {
			if err == nil {
				err = r.e.Flush()
			}
			if !errors.Is(err, ErrFenced) || !errors.Is(r.e.Err(), ErrFenced) {
				t.Fatalf("%d: after a failed manifest: %v, %v, want it fenced", i, err, r.e.Err())
			}
			// The fence holds before it is told.
			eventually(t, "the fence to be told", func() bool { return f.permanent() > 0 })
			if f.permanent() != 1 {
				t.Fatalf("%d: told %d times: %v", i, f.permanent(), f.all)
			}
			if _, err := r.e.Checkpoint("copy"); !errors.Is(err, ErrFenced) {
				t.Fatalf("%d: a fenced engine's checkpoint: %v", i, err)
			}
			r.want("first", "1")
			v, err := r.e.NewView() // views go on, too
			r.must(err)
			if c, err := v.Count(0); err != nil || c.Keys == 0 {
				t.Fatalf("%d: a view of a fenced engine: %+v, %v", i, c, err)
			}
			r.must(v.Close())
			if _, err := r.e.Metrics(); !errors.Is(err, ErrFenced) {
				t.Fatalf("%d: metrics of a fenced engine: %v", i, err)
			}
		} else {
			r.must(err)
		}
		durable, err := r.e.Durable()
		r.must(err)
		r.must(r.e.Close())
		for _, percent := range []int{0, 100} {
			left := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(1, 1))})
			e, err := Open("e", Options{FS: left, Tuning: Tuning{Logged: 1 << 30}, MemTableSize: 256 << 10})
			if err != nil {
				t.Fatalf("%d: does not open after a failed manifest: %v", i, err)
			}
			pos, err := e.Position()
			r.must(err)
			if pos.Offset < durable {
				t.Fatalf("%d: opened at %s, durable was %d", i, pos, durable)
			}
			if got := contents(t, e); got["first"] != "1" {
				t.Fatalf("%d: data is missing", i)
			}
			r.must(e.Close())
		}
		if !hit {
			if i < 5 {
				t.Fatalf("only %d operations on manifests", i)
			}
			return
		}
	}
}

// A checkpoint that is under way when the fence goes up ends, and so do a flush and a close that wait.
func TestFenceEndsWaiting(t *testing.T) {
	if !apart(t) {
		return
	}
	mem := vfs.NewMem()
	var armed atomic.Bool
	atManifest, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if armed.Load() && strings.HasPrefix(op.Path, "e/MANIFEST") && op.Kind == errorfs.OpFileSync {
			once.Do(func() { close(atManifest) })
			<-goOn
			return syscall.EIO
		}
		return nil
	}))
	r := &rig{t: t, now: 1000}
	r.open("e", Options{FS: fs})
	r.set("a", "1")
	r.commit()
	armed.Store(true)
	results := make(chan error, 3)
	// Three waiting calls, started here; the test collects their results below.
	go func() { results <- r.e.Flush() }()
	<-atManifest
	go func() { results <- r.e.Flush() }()
	go func() { _, err := r.e.Checkpoint("copy"); results <- err }()
	close(goOn)
	for range 3 {
		if err := <-results; !errors.Is(err, ErrFenced) {
			t.Errorf("%v, want it fenced", err)
		}
	}
	r.want("a", "1")
	r.must(r.e.Close())
}

// A damaged table fences the engine and names the file; nothing damaged is handed on in a checkpoint. (Row "a byte
// flipped" of the design.)
func TestDamagedTable(t *testing.T) {
	mem := vfs.NewMem()
	var f faults
	r := newRig(t, mem, Options{OnError: f.add})
	r.must(r.fill("k", 200_000))
	r.must(r.e.Flush())
	r.must(r.e.Close())
	names, err := mem.List("shard/engine")
	r.must(err)
	for _, n := range names {
		if strings.HasSuffix(n, ".sst") {
			b, err := mem.UnsafeGetFileDataBuffer("shard/engine/" + n)
			r.must(err)
			b[len(b)/2] ^= 0x40
		}
	}
	r.open("shard/engine", Options{FS: mem, OnError: f.add})
	tx := r.e.Tx()
	tx.Begin(&r.b, r.group, r.now)
	for i := 0; i < 200 && tx.Err() == nil; i++ {
		tx.Get(fmt.Appendf(nil, "k%d", i))
	}
	tx.Set([]byte("after"), Record{Type: TypeString})
	if tx.Err() == nil || tx.End() {
		t.Fatalf("a mutation that read damage was ended: %v", tx.Err())
	}
	if f.permanent() != 1 || !strings.Contains(f.all[0].Error(), ".sst") {
		t.Fatalf("faults %v, want one that names the file", f.all)
	}
	r.begin()
	r.set("x", "y")
	if err := r.apply(r.batch()); !errors.Is(err, ErrFenced) {
		t.Fatalf("apply: %v, want it fenced", err)
	}
	if _, err := r.e.Checkpoint("copy"); !errors.Is(err, ErrFenced) {
		t.Fatalf("checkpoint: %v, want it fenced", err)
	}
}

// Apply refuses whole what does not continue the engine's position or reaches outside the keyspace. Pitfalls 2 and 8.
func TestApplyRefuses(t *testing.T) {
	r := newRig(t, vfs.NewMem(), Options{})
	r.set("a", "1")
	r.set("b", "2")
	r.commit()
	frame := func(first uint64, f func(b *wire.Builder)) []byte {
		var b wire.Builder
		b.Reset()
		f(&b)
		b.End()
		raw, err := b.Finish(first, 1)
		r.must(err)
		return raw
	}
	put := func(b *wire.Builder) {
		b.Put(AppendDataKey(nil, []byte("a")), AppendRecord(nil, Record{Type: TypeString}))
	}
	at := func(n uint64) wire.Position { return wire.Position{Generation: testGeneration, Offset: n} }
	for _, c := range []struct {
		name string
		b    wire.Batch
		want error
	}{
		{"a repeat", wire.Batch{Frames: frame(1, put), First: 1, At: at(2)}, ErrGap},
		{"a gap", wire.Batch{Frames: frame(3, put), First: 3, At: at(4)}, ErrGap},
		{"a frame that begins elsewhere", wire.Batch{Frames: frame(3, put), First: 2, At: at(4)}, ErrGap},
		{"an end that is not the frames'", wire.Batch{Frames: frame(2, put), First: 2, At: at(4)}, ErrGap},
		{"no position", wire.Batch{Frames: frame(2, put), First: 2}, ErrGap},
		{"a heartbeat", wire.Batch{Frames: wire.AppendHeartbeat(nil, wire.Heartbeat{}), First: 2, At: at(2)}, ErrGap},
		{"the position's key", wire.Batch{Frames: frame(2, func(b *wire.Builder) { put(b); b.Put(positionKey, make([]byte, 24)) }), First: 2, At: at(3)}, ErrKey},
		{"a delete outside", wire.Batch{Frames: frame(2, func(b *wire.Builder) { b.Delete(positionKey) }), First: 2, At: at(3)}, ErrKey},
		{"a range over the position", wire.Batch{Frames: frame(2, func(b *wire.Builder) { b.DeleteRange([]byte{0}, []byte{9}) }), First: 2, At: at(3)}, ErrKey},
		{"a range backwards", wire.Batch{Frames: frame(2, func(b *wire.Builder) { b.DeleteRange([]byte{2}, []byte{1}) }), First: 2, At: at(3)}, ErrKey},
		{"half a frame", wire.Batch{Frames: frame(2, put)[:40], First: 2, At: at(3)}, wire.ErrShort},
	} {
		if err := r.apply(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if pos, _ := r.e.Position(); pos != at(2) || r.get("a") != "1" {
			t.Fatalf("%s: the engine is at %s", c.name, pos)
		}
	}
	// A batch of several frames, and one of none that only begins a generation, are fine.
	two := append(frame(2, put), frame(3, put)...)
	r.must(r.apply(wire.Batch{Frames: two, First: 2, At: at(4)}))
	next := wire.Position{Generation: wire.Generation{9}, Offset: 4}
	r.must(r.apply(wire.Batch{First: 4, At: next}))
	r.must(r.e.Flush())
	r.must(r.e.Close())
	r.open("shard/engine", Options{FS: r.e.o.FS})
	if pos, _ := r.e.Position(); pos != next {
		t.Fatalf("reopened at %s, want %s", pos, next)
	}
	if !bytes.Equal([]byte(r.get("a")), nil) {
		t.Fatal("a is not empty")
	}
}
