package engine

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Checkpoints taken while a shard writes are each the data of one position, contain nothing but files to ship, and open
// in another directory, as another engine on the same caches. Pitfalls 15 and 40.
func TestCheckpointWhileWriting(t *testing.T) {
	fs := vfs.NewMem()
	shared := NewShared(16<<20, 4, 0)
	defer shared.Close()
	o := Options{FS: fs, Shared: shared, Tuning: Tuning{Logged: 1 << 30}, MemTableSize: 256 << 10}
	r := &rig{t: t, now: 1000}
	r.open("shard/engine", o)
	var mu sync.Mutex
	history := map[uint64]map[string]string{0: {}}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	// Started here, writes until stop is closed; the test waits for it below.
	wg.Go(func() {
		model := map[string]string{}
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			k, v := fmt.Sprint("k", i%500), strings.Repeat(fmt.Sprint(i), 100)
			r.set(k, v)
			model[k] = v
			b := r.batch()
			if i%20 == 0 {
				mu.Lock()
				history[r.next] = map[string]string{}
				for k, v := range model {
					history[r.next][k] = v
				}
				mu.Unlock()
			} else {
				mu.Lock()
				history[r.next] = nil // a boundary whose data was not kept
				mu.Unlock()
			}
			if err := r.apply(b); err != nil {
				t.Error(err)
				return
			}
			r.begin()
		}
	})
	compared := 0
	for i := 0; i < 200 && compared < 3; i++ {
		dir := fmt.Sprint("snapshots/", i)
		pos, err := r.e.Checkpoint(dir)
		r.must(err)
		names, err := fs.List(dir)
		r.must(err)
		for _, n := range names {
			if n == "LOCK" || strings.HasSuffix(n, ".log") || strings.Contains(n, "temp") {
				t.Fatalf("checkpoint has %s", n)
			}
		}
		// Ship it: a copy elsewhere.
		moved := fmt.Sprint("other/", i)
		if _, err := vfs.Clone(fs, fs, dir, moved); err != nil {
			t.Fatal(err)
		}
		e, err := Open(moved, o)
		r.must(err)
		if got, _ := e.Position(); got != pos {
			t.Fatalf("the copy opens at %s, want %s", got, pos)
		}
		if d, _ := e.Durable(); d != pos.Offset {
			t.Fatalf("the copy is durable to %d, want %d", d, pos.Offset)
		}
		mu.Lock()
		want, boundary := history[pos.Offset]
		mu.Unlock()
		if !boundary {
			t.Fatalf("a checkpoint at %s, which no batch ended at", pos)
		}
		if want != nil {
			compared++
			if got := contents(t, e); !equalStrings(got, want) {
				t.Fatalf("the copy at %s has other data", pos)
			}
		}
		r.must(e.Close())
		r.must(fs.RemoveAll(dir))
	}
	close(stop)
	wg.Wait()
	if compared == 0 {
		t.Fatal("nothing was compared")
	}
	if _, err := r.e.Checkpoint("shard/engine"); err == nil {
		t.Fatal("a checkpoint over an existing directory")
	}
	r.must(r.e.Close())
}

// A checkpoint of what was opened just now and not written to opens, empty or not: a replica's replica asks for one.
func TestCheckpointOfACheckpoint(t *testing.T) {
	fs := vfs.NewMem()
	r := newRig(t, fs, Options{})
	for i, from := range []string{"one", "two", "three", "four"} {
		if i == 2 {
			r.set("a", "1")
			r.commit()
		}
		_, err := r.e.Checkpoint(from)
		r.must(err)
		r.must(r.e.Close())
		r.open(from, Options{FS: fs})
	}
	r.want("a", "1")
}

// Two engines on one cache do not see each other's blocks, and a file cache smaller than the number of tables only
// makes things slower.
func TestSharedCaches(t *testing.T) {
	shared := NewShared(1, 2, 0)
	defer shared.Close()
	if size, _ := shared.Memory(); size < 8*minMemTable || shared.MemTableSize() != minMemTable {
		t.Fatalf("caches of %d bytes, memtables of %d", size, shared.MemTableSize())
	}
	fs := vfs.NewMem()
	rigs := make([]*rig, 2)
	for i := range rigs {
		rigs[i] = &rig{t: t, now: 1000}
		rigs[i].open(fmt.Sprint("e", i), Options{FS: fs, Shared: shared, Tuning: Tuning{Logged: 1 << 30}, MemTableSize: 256 << 10})
	}
	for round := range 10 {
		for i, r := range rigs {
			for k := range 200 {
				r.set(fmt.Sprint("k", k), fmt.Sprint("engine ", i, " round ", round, " key ", k, strings.Repeat(".", 500)))
			}
			r.commit()
			r.must(r.e.Flush())
		}
	}
	for i, r := range rigs {
		for k := range 200 {
			if got, want := r.get(fmt.Sprint("k", k)), fmt.Sprint("engine ", i, " round 9 key ", k, "..."); !strings.HasPrefix(got, want) {
				t.Fatalf("engine %d: %.40q, want %q", i, got, want)
			}
		}
		m, err := r.e.Metrics()
		r.must(err)
		if m.DiskBytes == 0 || m.Tables == 0 || m.Flushes == 0 || m.CacheHits+m.CacheMisses == 0 {
			t.Errorf("metrics %+v", m)
		}
		r.must(r.e.Close())
	}
}

func TestSharedSizes(t *testing.T) {
	for _, c := range []struct {
		memory   int64
		shards   int
		memtable int
	}{{256 << 20, 2, 15 << 20}, {64 << 20, 2, 3 << 20}, {32 << 20, 1, 3 << 20}, {64 << 30, 1, 128 << 20}, {256 << 20, 256, 1 << 20}} {
		s := NewShared(c.memory, c.shards, 0)
		size, _ := s.Memory()
		if s.MemTableSize() != c.memtable || int64(2*c.shards*c.memtable) > size {
			t.Errorf("%d bytes for %d shards: memtables of %d, cache %d", c.memory, c.shards, s.MemTableSize(), size)
		}
		s.Close()
	}
	// What all of them may hold, blocks included, leaves the garbage collector room, and 16 MiB to the rest of a process.
	for memory := int64(32 << 20); memory < 16<<30; memory += memory / 3 {
		s := NewShared(memory, 2, 0)
		held := 2*stopMemTables*int64(s.MemTableSize()) + s.cache.MaxSize()
		if limit := (memory - min(memory/4, 16<<20)) / 4 * 3; held > limit+memory/1000 {
			t.Errorf("of %d bytes %d are held, more than %d", memory, held, limit)
		}
		s.Close()
	}
	if err := (Options{MemTableSize: 1}).Validate(); err == nil {
		t.Error("a memtable of one byte is valid")
	}
}

// Values from 1 byte to 64 MiB go in and come out, in the group, from memtables, from tables and from a checkpoint.
// Pitfall 29.
func TestLargeValues(t *testing.T) {
	sizes := []int{0, 1, 4095, 4096, 1 << 16, 1 << 20, 16<<20 + 1, 64 << 20}
	if testing.Short() {
		sizes = sizes[:6]
	}
	fs := vfs.NewMem()
	r := newRig(t, fs, Options{})
	value := func(n int) []byte { return bytes.Repeat([]byte("0123456789abcde"), n/15+1)[:n] }
	check := func(when string) {
		t.Helper()
		for _, n := range sizes {
			r.mutate(func(tx *Tx) {
				if rec, ok := tx.Get(fmt.Appendf(nil, "size %d", n)); !ok || !bytes.Equal(rec.Value, value(n)) {
					t.Fatalf("%s: the value of %d bytes is not there or differs (%d bytes)", when, n, len(rec.Value))
				}
			})
		}
	}
	for _, n := range sizes {
		r.set(fmt.Sprint("size ", n), string(value(n)))
	}
	check("in the group")
	r.commit()
	check("applied")
	r.must(r.e.Flush())
	check("flushed")
	v, err := r.e.NewView()
	r.must(err)
	from, to := KeyspaceBounds()
	d, next, err := v.Digest(from, to, 0)
	r.must(err)
	if d.Count != uint64(len(sizes)) || next != nil {
		t.Fatalf("digest %s, next %x", d, next)
	}
	r.must(v.Close())
	_, err = r.e.Checkpoint("copy")
	r.must(err)
	r.must(r.e.Close())
	r.open("copy", Options{FS: fs})
	check("in the checkpoint")
}
