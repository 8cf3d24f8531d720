package engine

import (
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// flushCategory is how Pebble labels the tables that a memtable's flush creates. TestBeforeFlush fails should a
	// new Pebble label them otherwise.
	flushCategory vfs.DiskWriteCategory = "pebble-memtable-flush"
	// retryPause is how long a failed flush or compaction waits for its next attempt; Pebble itself retries at once.
	retryPause = 250 * time.Millisecond
	flushDelay = 10 * time.Second
)

// gate stands between Pebble and the file system. It does three things that Pebble has no hook for, all where Pebble
// holds no lock that a client needs:
//
//  1. Before the first table of a flush is created it calls beforeFlush, and fails the creation, hence the flush, when
//     that fails. (EventListener.FlushBegin would be called with DB.mu held and cannot fail.)
//  2. After a failure it delays the creation of the next table: Pebble retries background work without a pause.
//  3. Once fenced it changes nothing on disk any more. Pebble's Logger.Fatalf is meant not to return; where it does,
//     Pebble goes on to delete the tables of a version edit that may well have reached the manifest. Behind the fence it
//     cannot, and the directory stays what a killed process would have left.
type gate struct {
	vfs.FS
	beforeFlush func() error
	closing     chan struct{} // closed when the engine begins to close
	fenced      atomic.Bool
	unsynced    atomic.Bool  // a flush has begun and beforeFlush has not yet returned for it
	retryAt     atomic.Int64 // nanoseconds since 1970; no table is created before
	flush       sync.Mutex   // serialises beforeFlush
}

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

// wait holds background work back until its pause is over, or for good when fenced: until the engine closes.
func (g *gate) wait() {
	if g.fenced.Load() {
		<-g.closing
		return
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
	if isTable(name) {
		g.wait()
	}
	if g.fenced.Load() {
		return nil, ErrFenced
	}
	if category == flushCategory {
		if err := g.syncLog(); err != nil {
			return nil, err
		}
	}
	f, err := g.FS.Create(name, category)
	if err == nil && strings.HasPrefix(path.Base(name), "MANIFEST-") {
		f = &gateFile{File: f, g: g}
	}
	return f, err
}

func isTable(name string) bool {
	return strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob")
}

func (g *gate) check(f func() error) error {
	if g.fenced.Load() {
		return ErrFenced
	}
	return f()
}

// Link implements vfs.FS.
func (g *gate) Link(from, to string) error {
	return g.check(func() error { return g.FS.Link(from, to) })
}

// Remove implements vfs.FS.
func (g *gate) Remove(name string) error {
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
	if g.fenced.Load() {
		return nil, ErrFenced
	}
	return g.FS.ReuseForWrite(from, to, category)
}

// Unwrap implements vfs.FS.
func (g *gate) Unwrap() vfs.FS { return g.FS }

// gateFile is a manifest: the one kind of file whose bytes say what the store is.
type gateFile struct {
	vfs.File
	g *gate
}

// Write implements vfs.File. Compactions that only move or delete tables come here without having created one.
func (f *gateFile) Write(b []byte) (int, error) {
	if f.g.fenced.Load() {
		f.g.wait()
		return 0, ErrFenced
	}
	return f.File.Write(b)
}

// Sync implements vfs.File.
func (f *gateFile) Sync() error { return f.g.check(f.File.Sync) }

// SyncData implements vfs.File.
func (f *gateFile) SyncData() error { return f.g.check(f.File.SyncData) }
