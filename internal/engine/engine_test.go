package engine

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/wire"
)

var testGeneration = wire.Generation{1, 2, 3}

// shardOf is what the tests use in place of a shard: groups of mutations that become frames and are applied.
type rig struct {
	t     testing.TB
	e     *Engine
	log   *testLog
	b     wire.Builder
	group uint64
	next  uint64
	now   int64
}

func newRig(t testing.TB, fs vfs.FS, o Options) *rig {
	o.FS = fs
	r := &rig{t: t, now: 1_000_000}
	r.open("shard/engine", o)
	t.Cleanup(func() { r.must(r.e.Close()) })
	return r
}

func (r *rig) open(dir string, o Options) {
	r.t.Helper()
	if o.Logged == 0 {
		o.Logged = 8 // so that there are logged values in most tests
	}
	e, err := Open(dir, o)
	r.must(err)
	r.e, r.log = e, &testLog{}
	pos, err := e.Position()
	r.must(err)
	r.next = pos.Offset
	r.begin()
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// begin begins a group.
func (r *rig) begin() {
	r.group++
	r.b.Reset()
}

// mutate is one mutation.
func (r *rig) mutate(f func(tx *Tx)) bool {
	r.t.Helper()
	tx := r.e.Tx()
	tx.Begin(&r.b, r.group, r.now)
	f(tx)
	r.must(tx.Err())
	return tx.End()
}

// commit applies the group and begins another.
func (r *rig) commit() {
	r.t.Helper()
	r.must(r.apply(r.batch()))
	r.begin()
}

// batch finishes the group's frame.
func (r *rig) batch() wire.Batch {
	r.t.Helper()
	b := wire.Batch{First: r.next}
	if r.b.Count() > 0 {
		raw, err := r.b.Finish(r.next, 1)
		r.must(err)
		f, err := wire.ParseFrame(raw)
		r.must(err)
		r.must(f.Check())
		b.Frames = raw
		r.next = f.Next()
	}
	b.At = wire.Position{Generation: testGeneration, Offset: r.next}
	return b
}

func (r *rig) set(key, value string) {
	r.t.Helper()
	r.mutate(func(tx *Tx) { tx.Set([]byte(key), Record{Type: TypeString, Value: []byte(value)}) })
}

func (r *rig) get(key string) string {
	r.t.Helper()
	var s string
	r.mutate(func(tx *Tx) {
		rec, ok := tx.Get([]byte(key))
		if s = "none"; ok {
			s = string(rec.Value)
		}
	})
	return s
}

func (r *rig) want(key, value string) {
	r.t.Helper()
	if got := r.get(key); got != value {
		r.t.Fatalf("%s is %.64q, want %.64q", key, got, value)
	}
}

func TestApplyAndReopen(t *testing.T) {
	fs := vfs.NewMem()
	r := newRig(t, fs, Options{})
	if pos, _ := r.e.Position(); !pos.IsZero() {
		t.Fatalf("an empty engine is at %s", pos)
	}
	r.set("a", "1")
	r.set("b", "2")
	r.want("a", "1")
	r.commit()
	r.want("a", "1")
	r.mutate(func(tx *Tx) { tx.Delete([]byte("b")) })
	r.want("b", "none")
	r.commit()
	r.want("b", "none")
	if d, _ := r.e.Durable(); d != 0 {
		t.Fatalf("durable is %d before any flush", d)
	}
	r.must(r.e.Flush())
	if d, _ := r.e.Durable(); d != 3 {
		t.Fatalf("durable is %d after a flush, want 3", d)
	}
	r.must(r.e.Close())
	r.open("shard/engine", Options{FS: fs})
	if r.next != 3 {
		t.Fatalf("reopened at %d, want 3", r.next)
	}
	r.want("a", "1")
	r.want("b", "none")
}

func TestDeleteAllInGroup(t *testing.T) {
	r := newRig(t, vfs.NewMem(), Options{})
	r.set("old", "1")
	r.commit()
	r.set("mid", "1")
	r.mutate(func(tx *Tx) { tx.DeleteAll() })
	r.want("old", "none")
	r.want("mid", "none")
	r.set("new", "1")
	r.want("new", "1")
	r.commit()
	r.want("old", "none")
	r.want("mid", "none")
	r.want("new", "1")
}

func TestScanOfAll(t *testing.T) {
	r := newRig(t, vfs.NewMem(), Options{})
	for i := range 500 {
		r.set(fmt.Sprint("key", i), "v")
	}
	r.commit()
	v, err := r.e.NewView()
	r.must(err)
	defer v.Close()
	seen := map[string]int{}
	for cursor, steps := uint64(0), 0; ; steps++ {
		cursor, err = v.Scan(cursor, 0, Slots, 10, r.now, func(k []byte, _ Record) bool { seen[string(k)]++; return true })
		r.must(err)
		if cursor == 0 {
			break
		}
	}
	if len(seen) != 500 {
		t.Fatalf("a scan gave %d keys, want 500", len(seen))
	}
	c, err := v.Count(r.now)
	r.must(err)
	if c.Keys != 500 {
		t.Fatalf("count %+v", c)
	}
	if _, ok, err := v.RandomKey(12345, r.now); !ok || err != nil {
		t.Fatal("no random key", err)
	}
}
