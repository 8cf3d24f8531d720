package engine

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A compaction that is due at Open neither runs before the owner has started nor keeps Open waiting, and runs then.
func TestCompactionsWaitForTheStart(t *testing.T) {
	for _, by := range []string{"started", "flush", "full level 0"} {
		t.Run(by, func(t *testing.T) {
			fs := vfs.NewMem()
			r := newRig(t, fs, Options{})
			r.e.compactions.mu.running = 100 // nothing more is allowed
			for i := range 20 {
				for k := range 100 {
					r.set(fmt.Sprint("k", k), fmt.Sprintf("v%d-%d", i, k))
				}
				r.commit()
				r.must(r.e.Flush())
			}
			before, err := r.e.Metrics()
			r.must(err)
			r.must(r.e.Close())

			r.open("shard/engine", Options{FS: fs})
			m, err := r.e.Metrics()
			r.must(err)
			if m.Compactions != 0 || m.L0Files != before.L0Files || m.L0Files < 4 {
				t.Fatalf("behind Open there were %d compactions, and %d tables are in level 0; want none, and the %d from before, at least 4", m.Compactions, m.L0Files, before.L0Files)
			}
			switch by {
			case "started":
				r.e.Started()
			case "flush":
				r.set("more", "of it")
				r.commit()
				r.must(r.e.Flush())
			case "full level 0": // what is applied waits for them
				r.e.pressure.tables.Store(stopTables)
				r.set("more", "of it")
				r.commit()
			}
			eventually(t, "the compaction that was due", func() bool {
				m, err := r.e.Metrics()
				r.must(err)
				return m.Compactions > 0 && m.L0Files < before.L0Files
			})
			r.want("k7", "v19-7")
			r.e.Started()
		})
	}
}
