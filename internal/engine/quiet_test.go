package engine

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestQuiet: while somebody asks for quiet there is no compaction, however much there is to compact, and there is one
// afterwards.
func TestQuiet(t *testing.T) {
	fs := vfs.NewMem()
	r := newRig(t, fs, Options{Tuning: Tuning{Logged: 1 << 30}, MemTableSize: 256 << 10})
	release := r.e.Quiet()
	for round := range 20 {
		for k := range 100 {
			r.set(fmt.Sprint("k", k), fmt.Sprint(round, strings.Repeat(".", 500)))
		}
		r.commit()
		r.must(r.e.Flush())
	}
	m, err := r.e.Metrics()
	r.must(err)
	if m.Compactions != 0 || m.L0Files < 15 {
		t.Fatalf("%d compactions, %d tables in level 0", m.Compactions, m.L0Files)
	}
	release()
	eventually(t, "a compaction behind the release", func() bool {
		m, err := r.e.Metrics()
		r.must(err)
		return m.Compactions > 0
	})
}

// A compaction goes on when the last one who asked for quiet has released it, when level 0 is full, after a time in any case,
// and when the engine closes.
func TestQuietEnds(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(q *quiet, release func(), tables *atomic.Int64, closing chan struct{})
		took time.Duration
	}{
		"released":            {func(_ *quiet, release func(), _ *atomic.Int64, _ chan struct{}) { release(); release() }, 3 * time.Second},
		"no room":             {func(_ *quiet, _ func(), tables *atomic.Int64, _ chan struct{}) { tables.Store(quietTables) }, 3 * time.Second},
		"closing":             {func(_ *quiet, _ func(), _ *atomic.Int64, closing chan struct{}) { close(closing) }, 3 * time.Second},
		"never":               {func(*quiet, func(), *atomic.Int64, chan struct{}) {}, quietFor},
		"one more":            {func(q *quiet, _ func(), _ *atomic.Int64, _ chan struct{}) { q.hold() }, 3*time.Second + quietFor},
		"only one of several": {func(q *quiet, release func(), _ *atomic.Int64, _ chan struct{}) { q.hold(); release(); release() }, 3*time.Second + quietFor},
	} {
		synctest.Test(t, func(t *testing.T) {
			var tables atomic.Int64
			closing := make(chan struct{})
			q := &quiet{tables: tables.Load}
			q.wait(closing) // nobody asks for it
			release := q.hold()
			began := time.Now()
			done := make(chan struct{})
			go func() { // ends with the wait, which the test waits for
				defer close(done)
				q.wait(closing)
			}()
			time.Sleep(3 * time.Second)
			c.end(q, release, &tables, closing)
			<-done
			if took := time.Since(began).Round(time.Second); took != c.took {
				t.Errorf("%s: a compaction waited for %s, want %s", name, took, c.took)
			}
		})
	}
}
