package engine

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/understudy-kv/understudy/wire"
)

// SCAN's promise: a key that is there during the whole iteration is returned, and here exactly once, however the steps
// are cut, whatever is written between them, and whatever the number of shards is.
func TestScanPromise(t *testing.T) {
	r := newRig(t, vfs.NewMem(), Options{})
	steady := map[string]bool{}
	for i := range 300 {
		k := fmt.Sprintf("{%d}steady%d", i%40, i)
		r.set(k, "v")
		steady[k] = true
	}
	r.mutate(func(tx *Tx) { tx.Set([]byte("gone"), Record{Type: TypeString, Deadline: r.now - 1}) })
	r.commit()
	round := 0
	rapid.Check(t, func(t *rapid.T) {
		round++
		shards := rapid.SampledFrom([]int{1, 2, 7, 256}).Draw(t, "shards")
		seen := map[string]int{}
		cursor, end := uint64(0), false
		for steps := 0; !end; steps++ {
			count := rapid.IntRange(0, 50).Draw(t, "count")
			stopAt := rapid.IntRange(1, 60).Draw(t, "stop")
			v, err := r.e.NewView() // each step a view of its own, as SCAN does it
			r.must(err)
			slot, _ := CursorSlot(cursor)
			shard := ShardOf(slot, shards)
			from, to := SlotRange(shard, shards)
			cursor, err = v.Scan(cursor, from, to, count, r.now, func(k []byte, rec Record) bool {
				seen[string(k)]++
				stopAt--
				return stopAt > 0
			})
			r.must(err)
			r.must(v.Close())
			if cursor == 0 { // on to the next shard
				if shard+1 == shards {
					end = true
				} else {
					next, _ := SlotRange(shard+1, shards)
					cursor = Cursor(uint16(next), 0)
				}
			}
			if steps%5 == 0 {
				r.set(fmt.Sprint("new", round, steps), "v")
				r.mutate(func(tx *Tx) { tx.Delete(fmt.Appendf(nil, "new%d%d", round, steps-5)) })
				r.commit()
			}
		}
		for k := range steady {
			if seen[k] != 1 {
				t.Fatalf("%s was returned %d times", k, seen[k])
			}
		}
		if seen["gone"] != 0 {
			t.Fatal("an expired key was returned (pitfall 24)")
		}
	})
	v, err := r.e.NewView()
	r.must(err)
	if next, err := v.Scan(Slots<<32, 0, Slots, 10, r.now, nil); next != 0 || err != nil {
		t.Fatalf("a cursor past the end: %d, %v", next, err)
	}
	c, err := v.Count(r.now)
	r.must(err)
	if c.Expired != 1 || c.Deadlines != 0 {
		t.Fatalf("count %+v", c)
	}
	r.must(v.Close())
	r.must(v.Close())
}

// A view stays what it was, tells its position, and ends when the engine closes: in the middle of a walk, too.
func TestViewLifetime(t *testing.T) {
	r := newRig(t, vfs.NewMem(), Options{})
	for i := range 100 {
		r.set(fmt.Sprint("k", i), "1")
	}
	r.commit()
	v, err := r.e.NewView()
	r.must(err)
	r.mutate(func(tx *Tx) { tx.DeleteAll() })
	r.set("k0", "2")
	r.commit()
	r.must(r.e.Flush())
	pos, err := v.Position()
	r.must(err)
	rec, ok, err := v.Get([]byte("k0"), r.now)
	r.must(err)
	if pos != (wire.Position{Generation: testGeneration, Offset: 100}) || !ok || string(rec.Value) != "1" {
		t.Fatalf("the view is at %s with %+v", pos, rec)
	}
	if _, ok, err := v.Get([]byte("none"), r.now); ok || err != nil {
		t.Fatal(ok, err)
	}
	c, err := v.Count(r.now)
	r.must(err)
	if c.Keys != 100 {
		t.Fatalf("the view has %+v", c)
	}
	closed := make(chan error, 1)
	n := 0
	err = v.Keys(r.now, func([]byte, Record) bool {
		if n++; n == 5 {
			// Started here, closes the engine; the test waits for its result below.
			go func() { closed <- r.e.Close() }()
			eventually(t, "closing to begin", r.e.closing.Load)
		}
		return true
	})
	if !errors.Is(err, ErrClosed) || n != 5 {
		t.Fatalf("%d keys, then %v", n, err)
	}
	r.must(<-closed)
	for what, err := range map[string]error{
		"count": func() error { _, err := v.Count(0); return err }(),
		"get":   func() error { _, _, err := v.Get(nil, 0); return err }(),
		"view":  func() error { _, err := r.e.NewView(); return err }(),
		"flush": r.e.Flush(),
		"durable": func() error {
			_, err := r.e.Durable()
			return err
		}(),
		"checkpoint": func() error { _, err := r.e.Checkpoint("x"); return err }(),
		"metrics":    func() error { _, err := r.e.Metrics(); return err }(),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: %v", what, err)
		}
	}
	r.must(v.Close())
}

// Digests of equal content are equal however it got there and however the range is cut; any difference shows.
func TestDigest(t *testing.T) {
	a, b := newRig(t, vfs.NewMem(), Options{}), newRig(t, vfs.NewMem(), Options{})
	for i := range 500 {
		a.set(fmt.Sprint("k", i), fmt.Sprint("v", i))
	}
	a.commit()
	for i := 499; i >= 0; i-- {
		b.set(fmt.Sprint("k", i), "old")
		if i%50 == 0 {
			b.commit()
			b.must(b.e.Flush())
		}
		b.set(fmt.Sprint("k", i), fmt.Sprint("v", i))
	}
	b.commit()
	digest := func(r *rig, step int) (d Digest) {
		v, err := r.e.NewView()
		r.must(err)
		defer v.Close()
		from, to := KeyspaceBounds()
		for from != nil {
			part, next, err := v.Digest(from, to, step)
			r.must(err)
			if step > 0 && next != nil && part.Count != uint64(step) {
				t.Fatalf("a part of %d, want %d", part.Count, step)
			}
			d, from = d.Add(part), next
		}
		return d
	}
	want := digest(a, 0)
	if want.Count != 500 {
		t.Fatalf("digest %s", want)
	}
	for _, step := range []int{1, 7, 499, 500, 501} {
		if got := digest(b, step); got != want {
			t.Fatalf("in steps of %d: %s, want %s", step, got, want)
		}
	}
	b.mutate(func(tx *Tx) {
		tx.Set([]byte("k7"), Record{Type: TypeString, Deadline: 1 << 60, Value: []byte("v7")})
	})
	b.commit()
	if got := digest(b, 0); got == want || got.Hi == want.Hi {
		t.Fatalf("a changed deadline does not show: %s", got)
	}
	// Narrowing down: the hashes name the key.
	hashes := func(r *rig) map[string][16]byte {
		v, err := r.e.NewView()
		r.must(err)
		defer v.Close()
		from, to := DataBounds(0, Slots)
		m := map[string][16]byte{}
		r.must(v.Hashes(from, to, func(key []byte, sum [16]byte) bool {
			k, err := DecodeKey(key)
			r.must(err)
			m[string(k.User)] = sum
			return true
		}))
		return m
	}
	ha, hb := hashes(a), hashes(b)
	for k := range ha {
		if (ha[k] != hb[k]) != (k == "k7") {
			t.Fatalf("%s: %x and %x", k, ha[k], hb[k])
		}
	}
	var h hasher
	long := bytes.Repeat([]byte("x"), 40<<10)
	if one, two := h.entry([]byte("ab"), []byte("c")), h.entry([]byte("a"), []byte("bc")); one == two {
		t.Fatal("the border between key and value is not hashed")
	}
	if h.entry([]byte("k"), long) == h.entry([]byte("k"), long[1:]) {
		t.Fatal("long values do not differ")
	}
}
