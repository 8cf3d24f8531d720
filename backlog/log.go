package backlog

import (
	"errors"
	"fmt"
	"sort"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Log is one shard's log: its write-ahead log and its replication log at once. One goroutine appends and publishes;
// every other method may be called from any goroutine.
//
// Invariants, checked by check:
//
//  1. Segments are contiguous: each begins where the one before it ends, the last one (the active one) ends at Next,
//     and only the last one may be empty.
//  2. Oldest <= Published <= Next and Durable <= Next.
//  3. The slabs of the memory window are contiguous, end at Next, and hold nothing older than Oldest: what memory has,
//     the disk has too.
//  4. A slab is in the window, pinned, or free; all of them together are at most Memory bytes.
//  5. Before Durable, every byte and every directory entry was synced.
//
// Lock order: appending, trimming, syncing, dirSync, mu. Only mu is taken by readers and by Publish, and no IO is done under it.
type Log struct {
	o         Options
	dir       vfs.File
	mark      *watermark // used by the one Sync that runs
	recovered Recovery

	next, durable, published atomic.Uint64 // changed under mu
	failure                  atomic.Pointer[failure]
	held                     atomic.Bool // readers wait that were not told of what was published; changed under mu

	// appending is held through Append, so that Close can wait for it.
	appending struct {
		sync.Mutex
		active   *segment
		mustRoll bool  // a roll failed: its file may exist, so the active segment must not grow past its name
		slab     *slab // being filled, or nil
		filled   int   // bytes of it in use, the uncommitted ones too
	}

	// trimming is held through Trim: segments leave one at a time, oldest first.
	trimming struct {
		sync.Mutex
		garbage []*segment // no longer part of the log, files not removed yet
	}

	// syncing lets callers of Sync share one.
	syncing struct {
		sync.Mutex
		running bool
		done    sync.Cond
		batch   []*segment
		files   []vfs.File
	}

	// dirSync is held through a sync of the directory, which Sync and Trim both do.
	dirSync sync.Mutex

	mu struct {
		sync.Mutex
		segments   []*segment
		memory     memory
		waiting    []*Reader
		armed      []func() // of those that waited; room for callArmed
		keep, disk int64
		garbage    int64 // bytes of files that trimming could not remove yet
		dirDirty   bool  // an entry was made that no sync of the directory covered yet
	}
}

// Bounds are what a log holds.
type Bounds struct {
	Oldest      uint64 // first offset that can still be read
	MemoryFirst uint64 // first offset that memory has; Next if it has none
	Published   uint64
	Next        uint64
	Durable     uint64
	Bytes       int64 // on disk
	MemoryBytes int64 // of slabs, in use or not
}

// Next is the offset that the next appended mutation takes.
func (l *Log) Next() uint64 { return l.next.Load() }

// Durable is the offset before which everything survives power loss.
func (l *Log) Durable() uint64 { return l.durable.Load() }

// Published is the offset before which readers may see everything.
func (l *Log) Published() uint64 { return l.published.Load() }

// Recovered is what Open found. It is zero after Create.
func (l *Log) Recovered() Recovery { return l.recovered }

// Bounds returns one consistent view.
func (l *Log) Bounds() Bounds {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := Bounds{
		Oldest: l.oldestLocked(), MemoryFirst: min(l.mu.memory.firstLocked(l.next.Load()), l.next.Load()),
		Published: l.published.Load(), Next: l.next.Load(), Durable: l.durable.Load(),
		Bytes: l.mu.garbage, MemoryBytes: l.mu.memory.bytesLocked(),
	}
	for _, s := range l.mu.segments {
		b.Bytes += s.size
	}
	return b
}

// PastCap reports whether the log takes more of the disk than its cap.
func (l *Log) PastCap() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	bytes := l.mu.garbage
	for _, s := range l.mu.segments {
		bytes += s.size
	}
	return bytes > l.mu.disk
}

// BytesFrom is how many bytes of the log lie in [offset, Next). It may be too high by less than 64 KiB for a boundary,
// and counts the whole of a frame that offset lies in.
func (l *Log) BytesFrom(offset uint64) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if offset >= l.next.Load() {
		return 0
	}
	var n int64
	for i := len(l.mu.segments) - 1; i >= 0; i-- {
		s := l.mu.segments[i]
		if s.first <= offset {
			return n + s.size - s.markLocked(offset).pos
		}
		n += s.bytes()
	}
	return n
}

// SetLimits changes Keep and Disk; the next Trim obeys them.
func (l *Log) SetLimits(keep, disk int64) error {
	if err := validateLimits(keep, disk); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.keep, l.mu.disk = keep, disk
	return nil
}

// Limits are Keep and Disk as they are now.
func (l *Log) Limits() (keep, disk int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.keep, l.mu.disk
}

// Publish lets readers see everything before next, which must have been appended. It never goes back.
func (l *Log) Publish(next uint64) { l.publish(next, false) }

// PublishHeld is Publish, but that readers which wait, in Next or armed, are not told before Announce or the next Publish: to tell them of
// several publications at once costs less. It reports whether somebody has to call Announce, and soon, since nobody else is going to.
func (l *Log) PublishHeld(next uint64) (held bool) { return l.publish(next, true) }

// Announce tells the readers that wait what PublishHeld has not told them. Anybody may call it at any time.
func (l *Log) Announce() {
	if !l.held.Load() {
		return
	}
	l.mu.Lock()
	if l.held.Load() {
		l.wakeLocked()
	}
	l.callArmed()
}

func (l *Log) publish(next uint64, hold bool) (held bool) {
	l.mu.Lock()
	if next > l.next.Load() {
		l.mu.Unlock()
		panic(fmt.Sprintf("backlog: published %d, appended only up to %d", next, l.next.Load()))
	}
	if next > l.published.Load() {
		l.published.Store(next)
		if hold && len(l.mu.waiting) > 0 {
			held = !l.held.Swap(true)
			l.mu.Unlock()
			return held
		}
		l.wakeLocked()
	}
	l.callArmed()
	return false
}

// wakeLocked makes every waiting reader look again. Those that were armed are called by callArmed.
func (l *Log) wakeLocked() {
	l.held.Store(false)
	l.mu.armed = l.mu.armed[:0]
	for i, r := range l.mu.waiting {
		if r.armed != nil {
			l.mu.armed = append(l.mu.armed, r.armed)
			r.armed = nil
		} else {
			select {
			case r.wake <- struct{}{}:
			default:
			}
		}
		l.mu.waiting[i] = nil
	}
	l.mu.waiting = l.mu.waiting[:0]
}

// callArmed lets go of mu and calls what wakeLocked has found.
func (l *Log) callArmed() {
	armed := l.mu.armed
	l.mu.armed = nil // while they are called somebody else may publish
	l.mu.Unlock()
	for i, f := range armed {
		f()
		armed[i] = nil
	}
	if armed != nil {
		l.mu.Lock()
		l.mu.armed = armed[:0]
		l.mu.Unlock()
	}
}

func (l *Log) oldestLocked() uint64 { return l.mu.segments[0].first }

// segmentLocked is the segment that offset, which must not be older than the oldest one held, lies in.
func (l *Log) segmentLocked(offset uint64) *segment {
	i := sort.Search(len(l.mu.segments), func(i int) bool { return l.mu.segments[i].first > offset })
	return l.mu.segments[i-1]
}

// failed is why the log takes nothing any more, or nil.
func (l *Log) failed() error {
	if f := l.failure.Load(); f != nil {
		return f.err
	}
	return nil
}

// fail breaks the log for good. The first reason stays.
func (l *Log) fail(what string, err error) error {
	broken := &failure{fmt.Errorf("%w: %s: %w", ErrBroken, what, err)}
	if errors.Is(err, syscall.ENOSPC) { // not wrapped: a full disk that broke the log does not pass by itself
		broken.err = fmt.Errorf("%w: %s: %v", ErrBroken, what, err)
	}
	if l.failure.CompareAndSwap(nil, broken) {
		l.o.Logger.Error("log is broken, open it again to go on", "cause", what, "error", err)
		return broken.err
	}
	return l.failed()
}

// goneLocked is the error for a segment that began at offset first and is not there any more.
func (l *Log) goneLocked(first uint64) error {
	if f := l.failure.Load(); f != nil && f.err == ErrClosed {
		return ErrClosed
	}
	return fmt.Errorf("%w: segment %d was trimmed, the oldest is %d", ErrEvicted, first, l.oldestLocked())
}

// Close wakes readers with ErrClosed, waits for the Append, the Sync and the Trim in progress, and closes the files.
// It syncs nothing: call Sync first for a clean stop. A second Close does nothing.
func (l *Log) Close() error {
	for {
		old := l.failure.Load()
		if old != nil && old.err == ErrClosed {
			return nil
		}
		if l.failure.CompareAndSwap(old, &failure{ErrClosed}) {
			break
		}
	}
	l.appending.Lock()
	defer l.appending.Unlock()
	l.trimming.Lock()
	defer l.trimming.Unlock()
	l.syncing.Lock()
	for l.syncing.running {
		l.syncing.done.Wait()
	}
	l.syncing.Unlock()

	l.mu.Lock()
	var files []vfs.File
	for _, s := range l.mu.segments {
		s.gone = true
		if f := s.idleLocked(); f != nil { // otherwise the reader that is at it closes it
			files = append(files, f)
		}
	}
	l.wakeLocked()
	l.callArmed()
	files = append(files, l.mark.file, l.dir)
	var first error
	for _, f := range files {
		if err := f.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}
