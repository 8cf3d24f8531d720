package engine

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// filled is an engine with n keys of 64-byte values.
func filled(t testing.TB, n int, o Options) (*rig, [][]byte) {
	r := newRig(t, vfs.NewMem(), o)
	keys := make([][]byte, n)
	value := make([]byte, 64)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "key:%012d", i)
		r.e.Tx().Begin(&r.b, r.group, r.now)
		binary.LittleEndian.PutUint64(value, uint64(i))
		r.e.Tx().Set(keys[i], Record{Type: TypeString, Value: value})
		r.e.Tx().End()
		if i%256 == 255 {
			r.commit()
		}
	}
	r.commit()
	return r, keys
}

func BenchmarkGet(b *testing.B) {
	for _, n := range []int{1000, 200_000} {
		b.Run(fmt.Sprint("keys=", n), func(b *testing.B) {
			shared := NewShared(256<<20, 1, 0)
			defer shared.Close()
			r, keys := filled(b, n, Options{Shared: shared})
			r.must(r.e.Flush())
			tx := r.e.Tx()
			tx.Begin(&r.b, r.group, r.now)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, ok := tx.Get(keys[i*7919%n]); !ok {
					b.Fatal("absent")
				}
				i++
			}
			tx.End()
			r.must(r.e.Close())
		})
	}
}

func BenchmarkGetOverlay(b *testing.B) {
	r, keys := filled(b, 256, Options{})
	tx := r.e.Tx()
	tx.Begin(&r.b, r.group, r.now)
	for _, k := range keys {
		tx.Set(k, Record{Type: TypeString, Value: k})
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		tx.Get(keys[i%256])
		i++
	}
	tx.Rollback()
}

// BenchmarkSet is the whole write path without the log: groups of 256 puts, each a mutation, built, sealed and applied.
func BenchmarkSet(b *testing.B) {
	for _, group := range []int{1, 16, 256, 4096} {
		b.Run(fmt.Sprint("group=", group), func(b *testing.B) {
			shared := NewShared(256<<20, 1, 0)
			defer shared.Close()
			r, keys := filled(b, 200_000, Options{Shared: shared})
			tx := r.e.Tx()
			value := make([]byte, 64)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				tx.Begin(&r.b, r.group, r.now)
				tx.Set(keys[i*7919%len(keys)], Record{Type: TypeString, Value: value})
				tx.End()
				if i++; i%group == 0 {
					r.commit()
				}
			}
			r.must(r.e.Close())
		})
	}
}

// BenchmarkTxSet is the part of BenchmarkSet that runs for each command: begin, set, end.
func BenchmarkTxSet(b *testing.B) {
	r, keys := filled(b, 20_000, Options{})
	tx := r.e.Tx()
	value := make([]byte, 64)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		tx.Begin(&r.b, r.group, r.now)
		tx.Set(keys[i*7919%len(keys)], Record{Type: TypeString, Value: value})
		tx.End()
		if i++; i%256 == 0 {
			r.begin()
		}
	}
}

func BenchmarkApply(b *testing.B) {
	for _, size := range []int{64, 1024} {
		b.Run(fmt.Sprint("value=", size), func(b *testing.B) {
			shared := NewShared(256<<20, 1, 0)
			defer shared.Close()
			r, keys := filled(b, 100_000, Options{Shared: shared})
			value := make([]byte, size)
			tx := r.e.Tx()
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				b.StopTimer()
				for range 256 {
					tx.Begin(&r.b, r.group, r.now)
					tx.Set(keys[i*7919%len(keys)], Record{Type: TypeString, Value: value})
					tx.End()
					i++
				}
				batch := r.batch()
				b.StartTimer()
				r.must(r.e.Apply(batch))
				r.begin()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/256, "ns/put")
			r.must(r.e.Close())
		})
	}
}

// BenchmarkFlush hands a memtable of 400,000 keys, written in no order, to Pebble.
func BenchmarkFlush(b *testing.B) {
	shared := NewShared(512<<20, 1, 0)
	defer shared.Close()
	const n = 400_000
	r, keys := filled(b, n, Options{Shared: shared})
	r.must(r.e.Flush())
	value := make([]byte, 64)
	tx := r.e.Tx()
	for b.Loop() {
		b.StopTimer()
		for i := range n {
			tx.Begin(&r.b, r.group, r.now)
			tx.Set(keys[i*7919%n], Record{Type: TypeString, Value: value})
			tx.End()
			if i%256 == 255 {
				r.commit()
			}
		}
		r.commit()
		b.StartTimer()
		r.must(r.e.Flush())
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/key")
	r.must(r.e.Close())
}

// BenchmarkSortRefs is the first step of a flush: the order of a full memtable's keys.
func BenchmarkSortRefs(b *testing.B) {
	const n = 800_000
	m := newMemtable(1, 0, nil, n)
	key, value := make([]byte, 0, 32), make([]byte, 64)
	for i := range n {
		key = AppendDataKey(key[:0], fmt.Appendf(nil, "key:%012d", i))
		m.put(hashKey(key), key, value, false)
	}
	live := m.live(nil)
	refs := make([]uint32, n)
	for b.Loop() {
		copy(refs, live)
		sortRefs(m, refs, nil)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/key")
}

// BenchmarkMemtable overwrites, and reads, the keys of a memtable of a million in no order: what waits for memory in a put and in a get.
func BenchmarkMemtable(b *testing.B) {
	const n = 1_000_000
	m := newMemtable(1, 0, nil, n)
	key, value := AppendDataKey(nil, []byte("key:000000000000")), make([]byte, 64)
	next := func(i int) []byte {
		for at, rest := len(key)-1, i*7_368_787%n; at >= len(key)-6; at-- { // a prime: all keys, in no order
			key[at], rest = '0'+byte(rest%10), rest/10
		}
		return key
	}
	for i := range n {
		k := next(i)
		m.put(hashKey(k), k, value, false)
	}
	i := 0
	b.Run("put", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			k := next(i)
			m.put(hashKey(k), k, value, false)
			if i++; i%256 == 0 {
				m.reuse.turn() // as there are no readers
			}
		}
	})
	b.Run("get", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			k := next(i)
			if m.get(hashKey(k), k) == 0 {
				b.Fatal("a key is missing")
			}
			i++
		}
	})
}
