package engine

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/xxh3"
)

const (
	// flushCategory is how Pebble labels the tables that a memtable's flush creates. TestBeforeFlush fails should a
	// new Pebble label them otherwise.
	flushCategory vfs.DiskWriteCategory = "pebble-memtable-flush"
	// compactionCategory is the same of compactions; TestQuiet fails should a new Pebble label them otherwise.
	compactionCategory vfs.DiskWriteCategory = "pebble-compaction"
	// retryPause is how long a failed flush or compaction waits for its next attempt; Pebble itself retries at once.
	retryPause = 250 * time.Millisecond
	flushDelay = 10 * time.Second
)

// gate stands between Pebble and the file system. It does four things that Pebble has no hook for, all where Pebble
// holds no lock that a client needs:
//
//  1. Before the first table of a flush is created it calls beforeFlush, and fails the creation, hence the flush, when
//     that fails. (EventListener.FlushBegin would be called with DB.mu held and cannot fail.)
//  2. After a failure it delays the creation of the next table: Pebble retries background work without a pause.
//  3. It is the fence: when something fails whose fate on disk is unknown (a manifest, a marker, the directory), the
//     goroutine that it happened to never hears of it. It is parked for the rest of the process, and nothing in the
//     directory changes any more.
//  4. It has a compaction wait before its next table while somebody asked for quiet (quiet.go).
//
// Why parked: Pebble calls such errors fatal and is not made to go on. Told of the error, it would delete the tables of
// a version edit that may well be in the manifest, and then trip over level-0 bookkeeping that was prepared for the
// version that never came, which panics, and not only in builds with invariants. Parked inside the manifest write, the
// goroutine holds the manifest's lock and not DB.mu: a state that Pebble is in during each such write, only for longer.
// Reads, snapshots and commits go on; no other version edit can happen; Apply refuses.
type gate struct {
	vfs.FS
	dir         string
	beforeFlush func() error
	fatal       func(error)   // told why, before a goroutine is parked the first time
	opened      atomic.Bool   // Open has returned: from now on errors are met on Pebble's goroutines
	closing     chan struct{} // closed when the engine begins to close
	fence       sync.Once
	fenced      chan struct{} // closed when the fence goes up
	unsynced    atomic.Bool   // a flush has begun and beforeFlush has not yet returned for it
	retryAt     atomic.Int64  // nanoseconds since 1970; no table is created before
	flush       sync.Mutex    // serialises beforeFlush
	sums        sums          // of the tables
	quiet       quiet
}

func newGate(fs vfs.FS, dir string, beforeFlush func() error) *gate {
	return &gate{FS: fs, dir: dir, beforeFlush: beforeFlush, closing: make(chan struct{}), fenced: make(chan struct{})}
}

func (g *gate) isFenced() bool {
	select {
	case <-g.fenced:
		return true
	default:
		return false
	}
}

// raise puts up the fence. From then on nothing changes the directory.
func (g *gate) raise() { g.fence.Do(func() { close(g.fenced) }) }

// doom is for an error that Pebble would call fatal: it raises the fence, tells, and parks the goroutine. Before Open has
// returned it does nothing, for Open returns such errors.
func (g *gate) doom(err error) {
	if err != nil && g.opened.Load() {
		g.raise()
		g.fatal(err)
		park()
	}
}

// park never returns: see gate.
func park() { select {} }

// flushBegins is told by the event listener when the memtables to flush are chosen, with DB.mu held.
func (g *gate) flushBegins() { g.unsynced.Store(true) }

// pause delays the next attempt of background work.
func (g *gate) pause() { g.retryAt.Store(time.Now().Add(retryPause).UnixNano()) }

// syncLog makes the log durable for the flush that has begun.
func (g *gate) syncLog() error {
	g.flush.Lock()
	defer g.flush.Unlock()
	if !g.unsynced.Load() {
		return nil
	}
	if err := g.beforeFlush(); err != nil {
		return err
	}
	g.unsynced.Store(false)
	return nil
}

// wait holds background work back until its pause is over, or for good behind the fence.
func (g *gate) wait() {
	if g.isFenced() {
		park()
	}
	d := time.Until(time.Unix(0, g.retryAt.Load()))
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-g.closing:
	}
}

// Create implements vfs.FS.
func (g *gate) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	base := g.PathBase(name)
	inside := g.PathDir(name) == g.dir
	if inside && (strings.HasSuffix(base, ".sst") || strings.HasSuffix(base, ".blob")) {
		g.wait()
		if category == compactionCategory {
			g.quiet.wait(g.closing)
		}
	}
	if g.isFenced() {
		return nil, ErrFenced
	}
	if category == flushCategory {
		if err := g.syncLog(); err != nil {
			return nil, err
		}
	}
	f, err := g.FS.Create(name, category)
	if inside && (strings.HasPrefix(base, "MANIFEST-") || strings.HasPrefix(base, "marker.")) {
		g.doom(err)
		if err == nil {
			f = &gateFile{File: f, g: g}
		}
	}
	if err == nil && isTable(base) {
		g.sums.forget(name)
		f = &summedFile{File: f, sums: &g.sums, path: name, hash: xxh3.New()}
	}
	return f, err
}

// OpenDir implements vfs.FS.
func (g *gate) OpenDir(name string) (vfs.File, error) {
	f, err := g.FS.OpenDir(name)
	if err == nil && name == g.dir {
		f = &gateFile{File: f, g: g}
	}
	return f, err
}

func (g *gate) check(f func() error) error {
	if g.isFenced() {
		return ErrFenced
	}
	return f()
}

// Link implements vfs.FS.
func (g *gate) Link(from, to string) error {
	err := g.check(func() error { return g.FS.Link(from, to) })
	if err == nil && isTable(to) {
		g.sums.linked(from, to)
	}
	return err
}

// Remove implements vfs.FS.
func (g *gate) Remove(name string) error {
	g.sums.forget(name)
	return g.check(func() error { return g.FS.Remove(name) })
}

// RemoveAll implements vfs.FS.
func (g *gate) RemoveAll(name string) error {
	return g.check(func() error { return g.FS.RemoveAll(name) })
}

// Rename implements vfs.FS.
func (g *gate) Rename(from, to string) error {
	return g.check(func() error { return g.FS.Rename(from, to) })
}

// ReuseForWrite implements vfs.FS.
func (g *gate) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if g.isFenced() {
		return nil, ErrFenced
	}
	return g.FS.ReuseForWrite(from, to, category)
}

// Unwrap implements vfs.FS.
func (g *gate) Unwrap() vfs.FS { return g.FS }

// gateFile is a manifest, a marker or the directory: what says which files are the store. Only Pebble's background
// goroutines write them once Open has returned.
type gateFile struct {
	vfs.File
	g *gate
}

func (f *gateFile) do(op func() error) error {
	if f.g.isFenced() {
		if f.g.opened.Load() {
			park()
		}
		return ErrFenced
	}
	err := op()
	f.g.doom(err)
	return err
}

// Write implements vfs.File.
func (f *gateFile) Write(b []byte) (n int, err error) {
	err = f.do(func() error { n, err = f.File.Write(b); return err })
	return n, err
}

// Sync implements vfs.File.
func (f *gateFile) Sync() error { return f.do(f.File.Sync) }

// SyncTo implements vfs.File.
func (f *gateFile) SyncTo(length int64) (full bool, err error) {
	err = f.do(func() error { full, err = f.File.SyncTo(length); return err })
	return full, err
}

// SyncData implements vfs.File.
func (f *gateFile) SyncData() error { return f.do(f.File.SyncData) }
