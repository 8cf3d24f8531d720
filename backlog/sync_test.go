package backlog

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// gate holds every sync of a segment until it is opened.
type gate struct {
	mu    sync.Mutex
	held  bool
	open  *sync.Cond
	syncs int
}

func (g *gate) wait(name string) error {
	if !strings.HasSuffix(name, segmentSuffix) && !strings.HasSuffix(name, tempName) {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.syncs++
	for g.held {
		g.open.Wait()
	}
	return nil
}

func (g *gate) hold(held bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = held
	g.open.Broadcast()
}

// While a sync hangs in the disk, appends, rolls, publishes, readers, trims and bounds go on; callers of Sync that come
// meanwhile share the next one; and nothing is called durable before its own sync has ended.
func TestSyncStallsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{}
		g.open = sync.NewCond(&g.mu)
		l, err := Create(options(&hookFS{FS: vfs.NewMem(), sync: g.wait}), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		add(t, l, 1, 100)
		g.hold(true)
		before := g.syncs
		results := make(chan error, 10)
		// Started here, ends with its Sync; the test receives from results.
		start := func() { go func() { results <- l.Sync() }(); synctest.Wait() }
		start()
		r := newReader(t, l, 0)
		for range 10 { // several segments
			add(t, l, 1, 2000)
		}
		if _, err := drainReader(r, l.Published(), 0); err != nil {
			t.Fatal(err)
		}
		r.Close()
		l.Trim(l.Next(), 0, false)
		l.Bounds()
		for range 8 {
			start()
		}
		if l.Durable() != 0 || len(results) != 0 {
			t.Fatalf("durable is %d while the sync hangs, %d calls returned", l.Durable(), len(results))
		}
		rolled := l.Bounds().Next
		g.hold(false)
		for range 9 {
			if err := <-results; err != nil {
				t.Fatal(err)
			}
		}
		segments := len(l.mu.segments)
		if n := g.syncs - before; l.Durable() != rolled || n > 1+segments {
			t.Fatalf("durable is %d, want %d; %d syncs of %d segments for nine calls", l.Durable(), rolled, n, segments)
		}
		if n := g.syncs; l.Sync() != nil || g.syncs != n {
			t.Fatal("a sync with nothing to do went to the disk")
		}
		check(t, l)
	})
}

// Close waits for the sync in progress and makes later ones fail, unless they have nothing to do.
func TestCloseWaitsForSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{}
		g.open = sync.NewCond(&g.mu)
		l, err := Create(options(&hookFS{FS: vfs.NewMem(), sync: g.wait}), 0)
		if err != nil {
			t.Fatal(err)
		}
		add(t, l, 1, 100)
		g.hold(true)
		synced, closed := make(chan error, 1), make(chan error, 1)
		// Both started here, end with their call; the test receives below.
		go func() { synced <- l.Sync() }()
		synctest.Wait()
		go func() { closed <- l.Close() }()
		synctest.Wait()
		if len(closed) != 0 {
			t.Fatal("Close did not wait")
		}
		g.hold(false)
		if err := <-synced; err != nil {
			t.Fatal(err)
		}
		if err := <-closed; err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := l.Append(build(1, 1, 1), 1, 2); err != ErrClosed {
			t.Fatal(err)
		}
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
	})
}
