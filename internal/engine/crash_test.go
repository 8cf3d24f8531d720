package engine

import (
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// clone is what a crash leaves, and what had been promised by then.
type clone struct {
	fs      *vfs.MemFS
	at      string
	synced  uint64 // the log was durable up to here
	durable uint64 // what Durable had said
}

// cloneGuard keeps crash clones apart from the calls of MemFS that take its clone mutex for reading twice (Pebble
// v2.1.7): with a clone between the two they never end.
type cloneGuard struct {
	*vfs.MemFS
	mu sync.RWMutex
}

func (g *cloneGuard) clone(cfg vfs.CrashCloneCfg) *vfs.MemFS {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.CrashClone(cfg)
}

func (g *cloneGuard) Lock(name string) (io.Closer, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.MemFS.Lock(name)
}

func (g *cloneGuard) Link(from, to string) error {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.MemFS.Link(from, to)
}

func (g *cloneGuard) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.MemFS.ReuseForWrite(from, to, c)
}

// TestCrash takes crash clones between file operations while a shard writes, flushes and compacts, with 0, 50 and
// 100 % of the unsynced data. Each opens at some position, with exactly the data of that position; not before what
// Durable had said, and never ahead of the log (invariants 1 and 2; pitfall 9).
func TestCrash(t *testing.T) {
	shared := NewShared(16<<20, 2, 0)
	defer shared.Close()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng, cloneRNG := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2)) // the second is for Pebble's goroutines
	mem := &cloneGuard{MemFS: vfs.NewCrashableMem()}

	var ops, applied, synced, durable atomic.Uint64
	var mu sync.Mutex
	var clones []clone
	const every = 2
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		n := ops.Add(1)
		if op.Kind.ReadOrWrite() == errorfs.OpIsRead || n%every != 0 {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		c := clone{at: fmt.Sprint("before ", op.Kind, " of ", op.Path), durable: durable.Load()}
		cfg := vfs.CrashCloneCfg{UnsyncedDataPercent: int(n / every % 3 * 50), RNG: cloneRNG}
		c.fs = mem.clone(cfg)
		c.synced = synced.Load()
		clones = append(clones, c)
		return nil
	}))
	o := Options{Tuning: Tuning{Logged: 3000, WholeFlush: int64(1 + seed%2<<40), Staged: int64(1 + seed/2%2<<20)}, FS: fs, Shared: shared, MemTableSize: 256 << 10, BeforeFlush: func() error {
		synced.Store(applied.Load())
		return nil
	}}
	r := &rig{t: t, now: 1000}
	r.open("shard/engine", o)
	history := map[uint64]map[string]string{0: {}} // offset -> data
	model := map[string]string{}
	value := make([]byte, 6000)
	for i := range 400 {
		for range 1 + rng.IntN(5) {
			key := fmt.Sprint("key", rng.IntN(300))
			if rng.IntN(50) == 0 {
				r.mutate(func(tx *Tx) { tx.DeleteAll() })
				clear(model)
			} else if rng.IntN(5) == 0 {
				r.mutate(func(tx *Tx) { tx.Delete([]byte(key)) })
				delete(model, key)
			} else {
				for j := range value {
					value[j] = byte(rng.Uint32())
				}
				v := string(value[:rng.IntN(len(value))])
				r.set(key, v)
				model[key] = v
			}
		}
		b := r.batch()
		snapshot := make(map[string]string, len(model))
		for k, v := range model {
			snapshot[k] = v
		}
		history[r.next] = snapshot
		applied.Store(r.next) // the log has it before the engine does
		r.must(r.apply(b))
		r.begin()
		if i%60 == 59 {
			r.must(r.e.Flush())
		}
		if i%7 == 0 {
			d, err := r.e.Durable()
			r.must(err)
			durable.Store(d)
		}
		if i == 200 {
			_, err := r.e.Checkpoint("shard/checkpoint")
			r.must(err)
		}
	}
	r.must(r.e.Close())
	mu.Lock()
	defer mu.Unlock()
	if len(clones) < 100 {
		t.Fatalf("only %d clones", len(clones))
	}
	opened := map[uint64]int{}
	for _, c := range clones {
		o := o
		o.FS, o.BeforeFlush = c.fs, nil
		e, err := Open("shard/engine", o)
		if err != nil {
			t.Fatalf("crash %s: %v", c.at, err)
		}
		pos, err := e.Position()
		r.must(err)
		d, err := e.Durable()
		r.must(err)
		if d != pos.Offset {
			t.Errorf("crash %s: opened at %d, durable is %d", c.at, pos.Offset, d)
		}
		if pos.Offset < c.durable || pos.Offset > c.synced {
			t.Errorf("crash %s: opened at %d, want within [%d, %d]", c.at, pos.Offset, c.durable, c.synced)
		}
		want, boundary := history[pos.Offset]
		if !boundary {
			t.Fatalf("crash %s: opened at %d, which no batch ended at", c.at, pos.Offset)
		}
		if got := contents(t, e); !equalStrings(got, want) {
			t.Fatalf("crash %s: opened at %d with %d keys, not the data of that position (%d keys)", c.at, pos.Offset, len(got), len(want))
		}
		opened[pos.Offset]++
		r.must(e.Close())
	}
	t.Logf("%d clones opened at %d positions", len(clones), len(opened))
	if len(opened) < 4 {
		t.Errorf("the clones opened at %d different positions only", len(opened))
	}
}

func contents(t testing.TB, e *Engine) map[string]string {
	t.Helper()
	v, err := e.NewView()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	m := map[string]string{}
	if err := eachWhole(v, 0, func(k []byte, r Record) bool { m[string(k)] = string(r.Value); return true }); err != nil {
		t.Fatal(err)
	}
	return m
}

func equalStrings(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}
