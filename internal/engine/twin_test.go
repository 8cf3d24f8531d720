package engine

import (
	"errors"
	"fmt"
	"maps"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"
)

// twin is the naive model of a Tx over an engine: maps that are copied.
type twin struct {
	applied map[string]Record // what the engine has, expired records that were not reaped included
	now     map[string]Record // what the group sees
}

func visible(m map[string]Record, now int64) map[string]Record {
	v := maps.Clone(m)
	maps.DeleteFunc(v, func(_ string, r Record) bool { return r.Expired(now) })
	return v
}

// mutation draws some operations and performs them on both sides.
func (w *twin) mutation(t *rapid.T, r *rig, keys []string) {
	tx := r.e.Tx()
	tx.Begin(&r.b, r.group, r.now)
	saved, count := maps.Clone(w.now), r.b.Count()
	wrote := false
	for range rapid.IntRange(0, 6).Draw(t, "ops") {
		key := rapid.SampledFrom(keys).Draw(t, "key")
		switch rapid.SampledFrom([]string{"get", "set", "set", "deadline", "copy", "delete", "deleteall", "reap", "random", "scan"}).Draw(t, "op") {
		case "get":
			w.compareKey(t, tx, key)
		case "set", "deadline":
			rec := Record{Type: TypeString, Value: []byte(rapid.StringN(0, 8, 8).Draw(t, "value"))}
			if rapid.Bool().Draw(t, "expires") {
				rec.Deadline = r.now + rapid.Int64Range(-3, 10).Draw(t, "in")
			}
			tx.Set([]byte(key), rec)
			w.now[key], wrote = rec, true
		case "copy": // a value that Get returned is passed to Set
			if rec, ok := tx.Get([]byte(key)); ok {
				to := rapid.SampledFrom(keys).Draw(t, "to")
				want := w.now[key]
				tx.Set([]byte(to), rec)
				w.now[to], wrote = want, true
			}
		case "delete":
			tx.Delete([]byte(key))
			delete(w.now, key)
			wrote = true
		case "deleteall":
			if rapid.IntRange(0, 1).Draw(t, "really") == 0 {
				tx.DeleteAll()
				clear(w.now)
				wrote = true
			}
		case "reap":
			before := r.b.Len()
			n, more := tx.ReapExpired(rapid.IntRange(1, 4).Draw(t, "limit"))
			if n > 0 && r.b.Len() == before || more && r.b.Len() == before {
				t.Fatalf("reaped %d, more %v, and wrote nothing", n, more)
			}
			wrote = wrote || r.b.Len() > before
			for k, rec := range w.now { // only what nobody sees may go
				tx.key = AppendDataKey(tx.key[:0], []byte(k))
				if _, there := tx.lookup(Hash([]byte(k))); there {
					continue
				}
				if n--; !rec.Expired(r.now) {
					t.Fatalf("%s was reaped, its deadline is %d at %d", k, rec.Deadline, r.now)
				}
				delete(w.now, k)
			}
			if n != 0 {
				t.Fatalf("the reaper counted %d keys too many", n)
			}
		case "random":
			got, ok := tx.RandomKey(rapid.Uint64().Draw(t, "random"))
			v := visible(w.now, r.now)
			if _, there := v[string(got)]; ok != (len(v) > 0) || ok && !there {
				t.Fatalf("random key %q, %v, of %v", got, ok, v)
			}
		case "scan":
			w.compareAll(t, tx)
		}
		if tx.Err() != nil {
			t.Fatal(tx.Err())
		}
	}
	if rapid.IntRange(0, 3).Draw(t, "rollback") == 0 {
		tx.Rollback()
		w.now = saved
		if r.b.Count() != count {
			t.Fatal("a rolled back mutation was ended")
		}
		return
	}
	if got := tx.End(); got != wrote {
		t.Fatalf("end says %v, want %v", got, wrote)
	}
}

func (w *twin) compareKey(t *rapid.T, tx *Tx, key string) {
	got, ok := tx.Get([]byte(key))
	want, there := w.now[key]
	if there = there && !want.Expired(tx.Now()); ok != there || ok && !same(got, want) {
		t.Fatalf("%s is %+v %v, want %+v %v", key, got, ok, want, there)
	}
}

func same(a, b Record) bool {
	return a.Type == b.Type && a.Deadline == b.Deadline && string(a.Value) == string(b.Value)
}

// eachWhole calls f for every record that is not expired at now, with its value, until it returns false.
func eachWhole(v *View, now int64, f func(key []byte, r Record) bool) error {
	var failed error
	from, to := DataBounds(0, Slots)
	err := v.Raw(from, to, func(key, value []byte) bool {
		k, err := DecodeKey(key)
		if err != nil {
			failed = err
			return false
		}
		r, err := DecodeRecord(value)
		if err != nil {
			failed = err
			return false
		}
		return r.Expired(now) || f(k.User, r)
	})
	return errors.Join(err, failed)
}

// compareAll scans the group's view in steps and counts it.
func (w *twin) compareAll(t *rapid.T, tx *Tx) {
	want := visible(w.now, tx.Now())
	seen := map[string]Record{}
	for cursor := uint64(0); ; {
		cursor = tx.Scan(cursor, 0, Slots, 3, func(k []byte, r Record) bool {
			if _, twice := seen[string(k)]; twice {
				t.Fatalf("scan gave %s twice", k)
			}
			seen[string(k)] = r
			return true
		})
		if cursor == 0 {
			break
		}
	}
	if !maps.EqualFunc(seen, want, func(got, want Record) bool {
		return got.Type == want.Type && got.Deadline == want.Deadline && got.Value == nil
	}) {
		t.Fatalf("scan gave %v, want %v without their values", seen, want)
	}
	if c := tx.Count(); c.Keys != int64(len(want)) {
		t.Fatalf("count is %+v, want %d", c, len(want))
	}
}

// check compares the engine with what was applied, through a view, and checks invariant 3 on the raw entries.
func (w *twin) check(t *rapid.T, r *rig) {
	v, err := r.e.NewView()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	seen := map[string]Record{}
	err = eachWhole(v, r.now, func(k []byte, rec Record) bool {
		rec.Value = append([]byte(nil), rec.Value...)
		seen[string(k)] = rec
		return true
	})
	if want := visible(w.applied, r.now); err != nil || !maps.EqualFunc(seen, want, same) {
		t.Fatalf("engine has %v, want %v (%v)", seen, want, err)
	}
	index, records := map[string]bool{}, map[string]Record{}
	from, to := KeyspaceBounds()
	err = v.Raw(from, to, func(key, value []byte) bool {
		k, err := DecodeKey(key)
		if err != nil {
			t.Fatal(err)
		}
		if k.Kind == KeyIndex {
			index[fmt.Sprint(k.Deadline, string(k.User))] = true
		} else if records[string(k.User)], err = DecodeRecord(append([]byte(nil), value...)); err != nil {
			t.Fatal(err)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	for k, rec := range records {
		if rec.Deadline != 0 && !index[fmt.Sprint(rec.Deadline, k)] {
			t.Fatalf("%s has the deadline %d and no index entry", k, rec.Deadline)
		}
	}
}

// TestTwin runs random mutations, groups, rollbacks, lost groups, the clock and reopening against the twin.
// Pitfalls 22 (a mutation that half failed is not kept) and 24 (expired keys are not shown).
func TestTwin(t *testing.T) {
	shared := NewShared(8<<20, 1, 0)
	defer shared.Close()
	keys := []string{"", "a", "b", "{a}x", "{a}y", "k1", "k2", "k3", "k4", "longer key \x00\xff"}
	rapid.Check(t, func(t *rapid.T) {
		o := Options{FS: vfs.NewMem(), Shared: shared, MemTableSize: 256 << 10}
		if rapid.Bool().Draw(t, "flushes may write everything") {
			o.WholeFlush = 1
		}
		if rapid.Bool().Draw(t, "flushes are many tables") {
			o.Staged = 1
		}
		r := &rig{t: nopTB{TB: nil, t: t}, now: 1_000_000}
		r.open("e", o)
		defer func() { r.must(r.e.Close()) }()
		w := &twin{applied: map[string]Record{}, now: map[string]Record{}}
		t.Repeat(map[string]func(*rapid.T){
			"mutation":  func(t *rapid.T) { w.mutation(t, r, keys) },
			"mutation2": func(t *rapid.T) { w.mutation(t, r, keys) },
			"commit":    func(*rapid.T) { r.commit(); w.applied = maps.Clone(w.now) },
			"lose": func(*rapid.T) { // the log refused the group
				r.begin()
				w.now = maps.Clone(w.applied)
			},
			"tick":  func(t *rapid.T) { r.now += rapid.Int64Range(-2, 6).Draw(t, "ms") },
			"flush": func(*rapid.T) { r.must(r.e.Flush()) },
			"reopen": func(*rapid.T) {
				r.must(r.e.Flush())
				r.must(r.e.Close())
				r.open("e", o)
				w.now = maps.Clone(w.applied)
			},
			"": func(t *rapid.T) { w.check(t, r) },
		})
		// The reaper comes to an end, and then nothing that is past its deadline is left, nor a due index entry.
		for range 50 {
			var more bool
			r.mutate(func(tx *Tx) { _, more = tx.ReapExpired(3) })
			if !more {
				r.commit()
			}
		}
		w.applied = visible(w.now, r.now)
		w.check(t, r)
		v, err := r.e.NewView()
		r.must(err)
		c, err := v.Count(r.now)
		r.must(err)
		if c.Expired != 0 {
			t.Fatalf("%d expired records are left", c.Expired)
		}
		due := 0
		r.must(v.Raw([]byte{prefixIndex}, AppendIndexKey(nil, r.now, nil), func([]byte, []byte) bool { due++; return true }))
		r.must(v.Close())
		if due != 0 {
			t.Fatalf("%d due index entries are left", due)
		}
	})
}

// nopTB lets the rig report to a rapid.T.
type nopTB struct {
	testing.TB
	t *rapid.T
}

func (n nopTB) Helper()           {}
func (n nopTB) Fatal(args ...any) { n.t.Fatal(args...) }
