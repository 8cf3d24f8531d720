package engine

import (
	"encoding/binary"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// BenchmarkGrowth writes in no order, sixteen million times, to eight million keys with values of 64 bytes, a shard's share of a data set that is much
// larger than the memtables of a node with the default memory: what a write costs the process, flushes and compactions with it,
// and, behind that, a read.
func BenchmarkGrowth(b *testing.B) {
	const keys, writes, reads = 8_000_000, 16_000_000, 500_000
	shared := NewShared(512<<20, 2, 0)
	defer shared.Close()
	r := &rig{t: b, now: 1_000_000}
	r.open(filepath.Join(b.TempDir(), "engine"), Options{FS: vfs.Default, Shared: shared, Tuning: Tuning{Logged: 512}})
	defer func() { r.must(r.e.Close()) }()
	r.e.Started()
	rng := rand.New(rand.NewPCG(1, 2))
	key, value := []byte("key:000000000000"), make([]byte, 64)
	name := func(n uint64) {
		for j := len(key) - 1; j > 3; j-- {
			key[j], n = '0'+byte(n%10), n/10
		}
	}
	tx := r.e.Tx()
	set := func(i int, n uint64) {
		name(n)
		for j := 0; j < len(value); j += 8 {
			binary.LittleEndian.PutUint64(value[j:], rng.Uint64())
		}
		tx.Begin(&r.b, r.group, r.now)
		tx.Set(key, Record{Type: TypeString, Value: value})
		tx.End()
		if i%256 == 255 {
			r.must(r.e.Apply(r.batch()))
			r.begin()
		}
	}
	calm := func() {
		still := 0
		eventually(b, "no flush and no compaction", func() bool {
			still++
			if len(r.e.layers.Load().frozen) > 0 || r.e.db.Metrics().Compact.NumInProgress > 0 {
				still = 0
			}
			return still > 300
		})
	}
	for i := range keys {
		set(i, uint64(i))
	}
	var spent, read time.Duration
	for b.Loop() {
		calm()
		before := cpuTime(b)
		for i := range writes {
			set(i, rng.Uint64N(keys))
		}
		calm()
		spent += cpuTime(b) - before
		tx.Begin(&r.b, r.group, r.now)
		began := time.Now()
		for range reads {
			name(rng.Uint64N(keys))
			if _, ok := tx.Get(key); !ok {
				b.Fatalf("%s is not there", key)
			}
		}
		read += time.Since(began)
		tx.End()
	}
	b.ReportMetric(float64(spent)/float64(b.N)/writes, "cpu-ns/write")
	b.ReportMetric(float64(read)/float64(b.N)/reads, "ns/read")
	m := r.e.db.Metrics()
	var written uint64
	for _, l := range m.Levels {
		written += l.TableBytesFlushed + l.TableBytesIngested + l.TableBytesCompacted
	}
	b.ReportMetric(float64(written)/1e6/float64(b.N), "MB-written")
}

// cpuTime is what the process has used.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
