package primary

import (
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/internal/polite"
	"github.com/understudy-kv/understudy/wire"
)

// TestFullSyncHurries: from the snapshot to the stream, the process has a processor more where a goroutine keeps one.
func TestFullSyncHurries(t *testing.T) {
	t.Setenv("GOMAXPROCS", "2")
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	defer polite.Keep(func() {})()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{})
		s.shards[0].write(20, 100)
		p := s.dial(0)
		st := s.beginSync(p, 1, wire.ID{})
		if n := runtime.GOMAXPROCS(0); n != 3 {
			t.Errorf("%d processors during the sync, want 3", n)
		}
		if !p.fetch(st, everything) {
			t.Fatal("no end")
		}
		p.finish(st)
		synctest.Wait()
		if n := runtime.GOMAXPROCS(0); n != 2 {
			t.Errorf("%d processors behind the sync, want 2", n)
		}
	})
}
