package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/wire"
)

const (
	// stagedPrefix begins the names of tables that are not Pebble's yet.
	stagedPrefix = "staged-"
	// stagedCategory labels them for who counts what is written.
	stagedCategory vfs.DiskWriteCategory = "understudy-flush"
	// maxFrozen bounds how many memtables wait for the flusher, whatever their size.
	maxFrozen = 64
)

// flusher is the state of the goroutine that hands frozen memtables to Pebble: sorted, without what was overwritten, as
// tables that Pebble takes over with the position in one version edit. Nothing goes through Pebble's own memtable.
type flusher struct {
	wake  chan struct{} // one token: look again
	done  chan struct{} // closed when the goroutine has ended
	count atomic.Int64  // flushes
	bytes atomic.Int64  // of keys and values that were written to tables
	begun atomic.Int64  // what bytes was when the present flush began to write
	total atomic.Int64  // about how many it writes; 0 while that is not known
	next  int           // number of the next staged table
	again bool          // the last flush failed

	briefly atomic.Int32 // calls that wait for a flush and for nothing else: it writes no more than it must
}

// poke has the flusher look again.
func (f *flusher) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// flushLoop is the flusher's goroutine.
func (e *Engine) flushLoop() {
	defer close(e.flusher.done)
	for {
		select {
		case <-e.flusher.wake:
		case <-e.gate.closing:
			return
		}
		for len(e.layers.Load().frozen) > 0 {
			err := e.flushFrozen(e.layers.Load().frozen)
			if e.closing.Load() || e.gate.isFenced() {
				return
			}
			if err != nil {
				e.health.flushFailed(err)
				e.gate.wait()
			}
		}
	}
}

// flushFrozen hands these memtables, which are all that are frozen now, to Pebble and takes them out of the layers.
func (e *Engine) flushFrozen(fs []frozen) error {
	began := time.Now()
	e.flusher.total.Store(0)
	worker := e.worker()
	for _, f := range fs {
		f.arrange(&worker)
	}
	if err := e.o.BeforeFlush(); err != nil {
		return err
	}
	whole := !e.flusher.again && e.writesWhole(fs) // which takes more room than what must be written
	e.flusher.again = true
	paths, err := e.stage(fs, whole)
	switch {
	case err != nil:
	case whole:
		_, err = e.db.IngestAndExcise(context.Background(), paths, nil, nil, pebble.KeyRange{Start: everythingFrom, End: keyspaceTo})
	default:
		err = e.db.Ingest(context.Background(), paths)
	}
	if err != nil {
		for _, p := range paths {
			if rerr := e.gate.Remove(p); rerr != nil && !oserror.IsNotExist(rerr) {
				err = errors.Join(err, rerr)
			}
		}
		return err
	}
	e.flusher.again = false
	if whole {
		e.pressure.clear()
	}
	e.compactions.start()
	e.compactions.poke()
	e.durable.stale.Store(true)
	e.write.Lock()
	l := e.layers.Load()
	l = newLayers(l.active, l.frozen[:len(l.frozen)-len(fs)])
	e.layers.Store(l)
	e.pressure.behind.Store(l.behind())
	e.write.Unlock()
	e.flusher.count.Add(1)
	e.health.flushed(nil)
	keys, bytes := 0, int64(0)
	for _, f := range fs {
		keys, bytes = keys+f.keys, bytes+f.bytes
	}
	e.o.Logger.Debug("flushed", "memtables", len(fs), "whole", whole, "keys", keys, "bytes", bytes, "position", fs[0].at, "took", time.Since(began))
	return nil
}

// everythingFrom is the first key that there can be.
var everythingFrom = []byte{prefixSystem}

// writesWhole decides whether a flush of these memtables writes all that there is, merged with what Pebble has, to take the
// place of that. Where they write over a large part of it, compactions would soon rewrite the rest all the same, and these
// memtables' own content once more.
func (e *Engine) writesWhole(fs []frozen) bool {
	var size int64
	for _, f := range fs {
		size += f.bytes + f.left
	}
	if 2*size < e.o.WholeFlush || e.flusher.briefly.Load() > 0 {
		return false
	}
	held := e.held()
	return held >= e.o.WholeFlush && 2*size >= held && e.writesOver(fs)
}

// held is how many bytes Pebble has in tables.
func (e *Engine) held() (n int64) {
	for _, l := range e.db.Metrics().Levels {
		n += l.TablesSize
	}
	return n
}

// writesOver reports whether Pebble has, of some keys of the memtables, at least half.
func (e *Engine) writesOver(fs []frozen) bool {
	const most = 32
	asked, had := 0, 0
	for _, f := range fs {
		refs := f.newestData()
		for i := 0; i < len(refs); i += len(refs)/most + 1 {
			_, c, err := e.db.Get(f.key(refs[i]))
			if err == nil {
				had++
				err = c.Close()
			}
			if asked++; err != nil && !errors.Is(err, pebble.ErrNotFound) {
				return false // the flush will tell
			}
		}
	}
	return 2*had >= asked
}

// stage writes the memtables' content, and the newest one's position, into tables of ascending, disjoint ranges. It
// returns their paths, also those of tables that it did not finish. If whole, it writes what Pebble has, too.
//
// Pebble gives each table of an ingest a sequence number of its own, so that a delete-range in one could hide records of
// another. So if there is one, everything goes into one table, where all have the same number and nothing hides another.
func (e *Engine) stage(fs []frozen, whole bool) (paths []string, err error) {
	it := &iter{from: keyspaceFrom, to: keyspaceTo, deletions: !whole}
	var held int64
	if whole {
		held = e.held()
		if it.base, err = e.db.NewIter(&pebble.IterOptions{LowerBound: it.from, UpperBound: it.to}); err != nil {
			return nil, err
		}
	}
	log, done := browse(fs)
	it.log = log
	defer func() { err = errors.Join(err, it.Close(), done()) }()
	var hides []span
	for depth, f := range fs {
		it.hide(f.memtable, depth)
		hides = append(hides, f.hides...)
		it.add(f.memtable, depth, noEnd, f.newestData())
		it.add(f.memtable, depth, noEnd, f.expiry.sorted(f.memtable, f.expiry.refs)...)
	}
	if hides = union(hides); whole {
		hides = nil // what they hide is not written
	}
	var w *sstable.Writer
	defer func() {
		if w != nil {
			err = errors.Join(err, w.Close())
		}
	}()
	size := int64(0)
	begin := func() error {
		path := e.o.FS.PathJoin(e.dir, fmt.Sprint(stagedPrefix, e.flusher.next, ".sst"))
		e.flusher.next++
		f, err := e.gate.Create(path, stagedCategory)
		if err != nil {
			return err
		}
		paths = append(paths, path)
		f = vfs.NewSyncingFile(f, vfs.SyncingFileOptions{BytesPerSync: 1 << 20})
		w, size = sstable.NewWriter(objstorageprovider.NewFileWritable(f), e.tables), 0
		return nil
	}
	if err := begin(); err != nil {
		return paths, err
	}
	if err := w.Set(positionKey, wire.AppendPosition(nil, fs[0].at)); err != nil {
		return paths, err
	}
	for _, s := range hides {
		if err := w.DeleteRange(s.from, s.to); err != nil {
			return paths, err
		}
	}
	var own int64
	for _, f := range fs {
		own += f.bytes + f.left - int64(len(f.newestData()))*(recordHead+recordCost)
	}
	e.flusher.begun.Store(e.flusher.bytes.Load())
	e.flusher.total.Store(max(own, held))
	at, most := cuts(fs, held, e.o.Staged)
	n := 0
	for more := it.First(); more; more = it.Next() {
		if n++; n%1024 == 0 && e.closing.Load() {
			return paths, ErrClosed
		}
		place := uint64(Slots << 32)
		if key := it.Key(); key[0] == prefixData {
			place = point(key)
		} else {
			most = e.o.Staged
		}
		full := size > most
		for len(at) > 0 && place >= at[0] {
			full, at = size > 0, at[1:]
		}
		if full && len(hides) == 0 {
			err := w.Close()
			if w = nil; err != nil {
				return paths, err
			}
			if err := begin(); err != nil {
				return paths, err
			}
		}
		value, err := it.ValueAndErr()
		switch {
		case err != nil:
			err = e.readFailed(err)
		case it.deleted():
			err = w.Delete(it.Key())
		default:
			err = w.Set(it.Key(), value)
		}
		if err != nil {
			return paths, err
		}
		size += int64(len(it.Key()) + len(value))
		e.flusher.bytes.Add(int64(len(it.Key()) + len(value)))
	}
	if err := it.Error(); err != nil {
		return paths, err
	}
	err = w.Close()
	w = nil
	return paths, err
}

// Progress is about which part of the present flush, or the last one, is written: from 0 to 1. Any goroutine may call it.
func (e *Engine) Progress() float64 {
	total := e.flusher.total.Load()
	if total == 0 {
		return 0
	}
	return min(1, float64(e.flusher.bytes.Load()-e.flusher.begun.Load())/float64(total))
}

// union makes spans ascending and disjoint.
func union(spans []span) []span {
	spans = slices.Clone(spans)
	slices.SortFunc(spans, func(a, b span) int { return bytes.Compare(a.from, b.from) })
	out := spans[:0]
	for _, s := range spans {
		if n := len(out); n > 0 && bytes.Compare(s.from, out[n-1].to) <= 0 {
			if bytes.Compare(s.to, out[n-1].to) > 0 {
				out[n-1].to = s.to
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

// removeStaged removes tables that an earlier run did not hand over.
func removeStaged(fs vfs.FS, dir string) error {
	names, err := fs.List(dir)
	if oserror.IsNotExist(err) {
		return nil
	}
	for _, n := range names {
		if strings.HasPrefix(n, stagedPrefix) {
			err = errors.Join(err, fs.Remove(fs.PathJoin(dir, n)))
		}
	}
	return err
}

// Flush returns when everything applied before the call is durable, or with the reason why it cannot become so now.
func (e *Engine) Flush() error {
	if err := e.enter(); err != nil {
		return err
	}
	defer e.exit()
	return e.flush()
}

func (e *Engine) flush() error {
	if _, err := e.refused(); err != nil {
		return err
	}
	e.write.Lock()
	if at, _ := e.Position(); at != e.frozenAt {
		e.rotateLocked(nil, at)
	}
	last := e.layers.Load().active.id
	e.write.Unlock()
	return e.await(nil, func() bool {
		fs := e.layers.Load().frozen
		return len(fs) == 0 || fs[len(fs)-1].id >= last
	})
}

// refused is why nothing can become durable now, or nil, behind a channel that is closed when that changes and when
// background work has ended. A permanent error refuses writes; only one that fenced the files keeps what is in memory from
// being flushed.
func (e *Engine) refused() (<-chan struct{}, error) {
	changed, err := e.health.err()
	if errors.Is(err, ErrFenced) && !e.gate.isFenced() {
		err = nil
	}
	return changed, err
}

// await waits for background work, and for a channel, until done is true, or says why it cannot become so.
func (e *Engine) await(c <-chan struct{}, done func() bool) error {
	for {
		changed, err := e.refused()
		if err != nil {
			return err
		}
		if done() {
			return nil
		}
		select {
		case <-c:
		case <-changed:
		case <-e.gate.closing:
			return ErrClosed
		}
	}
}

// touchManifest has Pebble write its manifest, once: what it makes at an open is written with the first version edit, and
// a checkpoint before that does not open (Pebble v2.1.7).
func (e *Engine) touchManifest() error {
	if e.flusher.count.Load() > 0 {
		return nil
	}
	return e.flushPebble()
}

// flushPebble flushes Pebble's own memtable, which only a rewind fills.
func (e *Engine) flushPebble() error {
	flushed, err := e.db.AsyncFlush()
	if err != nil {
		return err
	}
	return e.await(flushed, func() bool {
		select {
		case <-flushed:
			return true
		default:
			return false
		}
	})
}
