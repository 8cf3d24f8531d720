package engine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"
)

// Records of all sizes, from none to more than a chunk, are found with their newest value while the index and the chunks
// grow; each key has one that is the newest.
//
// Nobody reclaims here, so no place is used twice; TestReuse is about that.
func TestMemtable(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	sizes := []int{0, 1, 7, 8, 9, 64, 1000, minChunk - recordHead, minChunk, maxChunk / 2, maxChunk - recordHead - 30, maxChunk, maxChunk + 1, 3*maxChunk + 5}
	m := newMemtable(1, 0, nil, 0)
	want := map[string][]byte{}
	last := uint32(0)
	for i := range 30_000 {
		if i == 10_000 {
			m.track()
			if len(m.data.refs) != m.keys {
				t.Fatalf("%d refs, %d keys", len(m.data.refs), m.keys)
			}
		}
		size := rng.IntN(100)
		if i%500 == 0 {
			size = sizes[i/500%len(sizes)]
		}
		key := AppendDataKey(nil, fmt.Append(nil, "key", rng.IntN(9000)))
		value := bytes.Repeat([]byte{byte(i)}, size)
		end := m.end()
		deleted := i%11 == 0
		if deleted {
			value = nil
		}
		m.put(hashKey(key), key, value, deleted)
		ref := m.get(hashKey(key), key)
		if m.tracked && m.data.refs[len(m.data.refs)-1] != ref {
			t.Fatalf("%d: ref %d is not the last one of those that are tracked", i, ref)
		}
		if ref <= last || ref < end || m.end() <= ref {
			t.Fatalf("%d: ref %d behind %d, the end was %d and is %d", i, ref, last, end, m.end())
		}
		last = ref
		want[string(key)] = value
		if deleted {
			want[string(key)] = nil
		}
	}
	for k, v := range want {
		ref := m.get(hashKey([]byte(k)), []byte(k))
		if ref == 0 {
			t.Fatalf("%x is not there", k)
		}
		got, err := m.value(ref, nil)
		if deleted := m.deleted(ref); deleted != (v == nil) || !bytes.Equal(got, v) || err != nil {
			t.Fatalf("%x is %d bytes, deleted %v; want %d bytes (%v)", k, len(got), deleted, len(v), err)
		}
	}
	if k := AppendDataKey(nil, []byte("absent")); m.get(hashKey(k), k) != 0 {
		t.Fatal("an absent key is there")
	}
	newest := m.newestData()
	if len(newest) != len(want) || m.keys != len(want) {
		t.Fatalf("%d newest records, %d in the index, want %d", len(newest), m.keys, len(want))
	}
	if !slices.IsSortedFunc(newest, m.compareRefs) {
		t.Fatal("the newest records are not in order")
	}
}

// Runs are made of what was added since the last one, and merged; whoever asks gets everything that it asked for, in order.
func TestOrdered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMemtable(1, 0, nil, 0)
		m.track()
		for range rapid.IntRange(1, 30).Draw(t, "rounds") {
			for range rapid.IntRange(1, 60).Draw(t, "puts") {
				key := AppendDataKey(nil, fmt.Append(nil, rapid.IntRange(0, 40).Draw(t, "key")))
				if rapid.Bool().Draw(t, "expiry") {
					key = AppendIndexKey(nil, int64(rapid.IntRange(0, 9).Draw(t, "deadline")), []byte("k"))
				}
				m.put(hashKey(key), key, nil, false)
			}
			for _, o := range []*ordered{&m.data, &m.expiry} {
				n := rapid.IntRange(0, len(o.refs)).Draw(t, "asked")
				runs := o.sorted(m, o.refs[:n])
				seen := map[uint32]bool{}
				for i, r := range runs {
					if !slices.IsSortedFunc(r, m.compareRefs) {
						t.Fatalf("run %d is not in order", i)
					}
					if i > 0 && len(runs[i-1]) <= len(r) {
						t.Fatalf("runs of %d and %d records were not merged", len(runs[i-1]), len(r))
					}
					for _, ref := range r {
						if seen[ref] {
							t.Fatal("a record stands in two runs")
						}
						seen[ref] = true
					}
				}
				for _, ref := range o.refs[:n] {
					if !seen[ref] {
						t.Fatalf("of %d records asked for one is missing", n)
					}
				}
			}
		}
	})
}

// Other goroutines look keys up while one puts: they find each key that was there before they began, whole, and never go
// back to an older value.
func TestMemtableReaders(t *testing.T) {
	m := newMemtable(1, 0, nil, 0)
	const keys = 5000
	var put atomic.Int64 // rounds that are done
	var wg sync.WaitGroup
	key := func(i int) []byte { return AppendDataKey(nil, fmt.Append(nil, "k", i)) }
	for g := range 2 {
		// A reader, started here, ends when everything is put; the test waits for it.
		wg.Go(func() {
			last := make([]int, keys)
			for i := g; put.Load() < 4*keys; i = (i + 7) % keys {
				before := put.Load()
				k := key(i)
				ref := m.get(hashKey(k), k)
				if ref == 0 {
					if before > int64(i) {
						t.Errorf("key %d was put and is not there", i)
						return
					}
					continue
				}
				v, _ := m.value(ref, nil)
				var of, round int
				if _, err := fmt.Sscanf(string(v), "%d/%d", &of, &round); err != nil || of != i || round < last[i] {
					t.Errorf("key %d has %q after round %d (%v)", i, v, last[i], err)
					return
				}
				last[i] = round
			}
		})
	}
	for n := range 4 * keys {
		k := key(n % keys)
		m.put(hashKey(k), k, fmt.Appendf(nil, "%d/%d", n%keys, n/keys), false)
		put.Store(int64(n + 1))
	}
	wg.Wait()
}

// TestLayers is TestTwin with a flusher that is held up, so that memtables pile up and every read goes through several of them,
// over what Pebble has; delete-ranges begin in the middle of batches, and views outlive flushes.
func TestLayers(t *testing.T) {
	shared := NewShared(8<<20, 1, 0)
	defer shared.Close()
	keys := []string{"", "a", "b", "{a}x", "{a}y", "k1", "k2", "k3", "k4"}
	most := 0
	rapid.Check(t, func(t *rapid.T) {
		var hold sync.Mutex
		held := false
		r := &rig{t: nopTB{TB: nil, t: t}, now: 1_000_000}
		whole := int64(1)
		if rapid.Bool().Draw(t, "flushes add to what there is") {
			whole = 1 << 40
		}
		r.open("e", Options{FS: vfs.NewMem(), Shared: shared, Tuning: Tuning{WholeFlush: whole}, BeforeFlush: func() error {
			hold.Lock()
			defer hold.Unlock()
			return nil
		}})
		release := func() {
			if held {
				held = false
				hold.Unlock()
			}
		}
		defer func() { release(); r.must(r.e.Close()) }()
		w := &twin{applied: map[string]Record{}, now: map[string]Record{}}
		type old struct {
			v    *View
			want map[string]Record
			at   uint64
		}
		var views []old
		commit := func() {
			r.commit()
			w.applied = map[string]Record{}
			for k, v := range w.now {
				w.applied[k] = v
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"mutation": func(t *rapid.T) { w.mutation(t, r, keys) },
			"commit":   func(*rapid.T) { commit() },
			"range": func(t *rapid.T) { // of some slots, as no command writes it yet
				commit()
				from := rapid.IntRange(0, Slots-1).Draw(t, "from")
				to := rapid.IntRange(from+1, Slots).Draw(t, "to")
				lower, upper := DataBounds(from, to)
				if rapid.Bool().Draw(t, "in the middle") {
					r.mutate(func(tx *Tx) { tx.Set([]byte("k1"), Record{Type: TypeString, Value: []byte("before")}) })
					w.now["k1"] = Record{Type: TypeString, Value: []byte("before")}
				}
				r.b.DeleteRange(lower, upper)
				r.b.End()
				for k := range w.now {
					if s := int(Slot([]byte(k))); s >= from && s < to {
						delete(w.now, k)
					}
				}
				commit()
			},
			"rotate": func(*rapid.T) {
				r.e.write.Lock()
				at, _ := r.e.Position()
				r.e.rotateLocked(nil, at)
				r.e.write.Unlock()
			},
			"hold": func(*rapid.T) {
				if !held {
					hold.Lock()
					held = true
				}
			},
			"release": func(*rapid.T) { release() },
			"flush": func(*rapid.T) {
				release()
				r.must(r.e.Flush())
			},
			"view": func(*rapid.T) {
				v, err := r.e.NewView()
				r.must(err)
				views = append(views, old{v, visible(w.applied, r.now), r.next})
			},
			"look": func(t *rapid.T) {
				for _, o := range views {
					got := map[string]Record{}
					r.must(eachWhole(o.v, r.now, func(k []byte, rec Record) bool {
						rec.Value = bytes.Clone(rec.Value)
						got[string(k)] = rec
						return true
					}))
					if pos, _ := o.v.Position(); pos.Offset > o.at || !sameRecords(got, o.want) {
						t.Fatalf("a view at %s has %v, want %v", pos, got, o.want)
					}
					r.must(o.v.Close())
				}
				views = nil
			},
			"": func(t *rapid.T) {
				if len(r.e.layers.Load().frozen) >= maxFrozen-2 {
					release()
				}
				most = max(most, len(r.e.layers.Load().all))
				w.check(t, r)
			},
		})
	})
	if want := 4; most < want && !testing.Short() || most < want-1 { // -short draws a few schedules only
		t.Errorf("at most %d memtables lay over each other", most)
	}
}

func sameRecords(a, b map[string]Record) bool {
	if len(a) != len(b) {
		return false
	}
	for k, r := range a {
		if s, ok := b[k]; !ok || !same(r, s) {
			return false
		}
	}
	return true
}

func TestUnion(t *testing.T) {
	s := func(from, to string) span { return span{[]byte(from), []byte(to)} }
	got := union([]span{s("k", "m"), s("a", "c"), s("b", "d"), s("d", "e"), s("k", "l"), s("x", "z")})
	want := []span{s("a", "e"), s("k", "m"), s("x", "z")}
	if fmt.Sprintf("%s", got) != fmt.Sprintf("%s", want) {
		t.Fatalf("%s, want %s", got, want)
	}
}

// TestSortRefs: by key, the newer record of a key first, whatever the keys: spread over the slots, in a few of them, or
// long; and whatever the order in which the refs come.
func TestSortRefs(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 100, Slots / 8, 30_000} {
		for name, key := range map[string]func(i int) string{
			"spread":    func(i int) string { return fmt.Sprint("k", i) },
			"few slots": func(i int) string { return fmt.Sprintf("{%d}%d", i%3, i) },
			"long":      func(i int) string { return strings.Repeat("x", 100+i%100) + fmt.Sprint(i) },
		} {
			for _, space := range []byte{prefixData, prefixIndex} {
				m := newMemtable(1, 0, nil, n)
				m.tracked = true
				for range n {
					k := AppendDataKey(nil, []byte(key(r.IntN(n))))
					if space == prefixIndex {
						k = append(binary.BigEndian.AppendUint64([]byte{prefixIndex}, r.Uint64N(4)), k[1:len(k)-1]...)
					}
					m.put(hashKey(k), k, []byte("v"), false)
				}
				refs := slices.Concat(m.data.refs, m.expiry.refs)
				r.Shuffle(len(refs), func(i, j int) { refs[i], refs[j] = refs[j], refs[i] })
				want := slices.Clone(refs)
				slices.SortFunc(want, m.compareRefs)
				if got := sortRefs(m, refs, nil); len(got) != n || !slices.Equal(got, want) {
					t.Errorf("%d keys %s in space %d are not in order", n, name, space)
				}
			}
		}
	}
}
