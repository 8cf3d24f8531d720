package engine

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/go-hclog"
)

// The errors of this package.
var (
	// ErrClosed is returned by everything that is called, or still runs, while the engine closes.
	ErrClosed = errors.New("engine: closed")
	// ErrFenced is returned after an error that the engine does not survive: it takes no more writes and must be opened
	// again. What is on disk is intact as far as it was before.
	ErrFenced = errors.New("engine: fenced after an earlier storage error; restart to recover from the log")
	// ErrStalled is returned while memtables cannot be flushed, by a full disk for example. Nothing of the refused call
	// happened; it may be repeated, and succeeds once a retried flush does.
	ErrStalled = errors.New("engine: cannot write to disk at present")
	// ErrGap means a batch that does not begin at the engine's position: something was skipped, or applied already.
	ErrGap = errors.New("engine: batch does not begin at the engine's position")
)

// Fault is what [Options.OnError] is told.
type Fault struct {
	Dir string // the engine's directory
	// Permanent faults fence the engine: [Engine.Apply] fails with [ErrFenced] until it is opened again. The others
	// are retried; while they keep a flush from happening Apply fails with [ErrStalled].
	Permanent bool
	Err       error
}

// Error implements error.
func (f *Fault) Error() string {
	if f.Permanent {
		return fmt.Sprintf("engine %s: %v; writes are refused until a restart", f.Dir, f.Err)
	}
	return fmt.Sprintf("engine %s: %v; it will be tried again", f.Dir, f.Err)
}

// Unwrap gives the cause.
func (f *Fault) Unwrap() error { return f.Err }

// health collects what Pebble reports from its goroutines. Its mutex is a leaf: events arrive with DB.mu held.
type health struct {
	dir     string
	log     hclog.Logger
	onError func(error)
	gate    *gate

	mu struct {
		sync.Mutex
		permanent error         // first fatal error or corruption
		stalled   error         // why the last flush failed; nil after one that did not
		lastFlush error         // how the last flush ended
		changed   chan struct{} // closed and replaced when permanent or stalled changes, and after background work
		logged    time.Time     // when a background error was logged last
		muted     int           // background errors since then
	}
}

func newHealth(dir string, o Options, g *gate) *health {
	h := &health{dir: dir, log: o.Logger, onError: o.OnError, gate: g}
	h.mu.changed = make(chan struct{})
	return h
}

// err is why writes are refused now, or nil, behind a channel that is closed when that changes.
func (h *health) err() (<-chan struct{}, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.mu.permanent != nil:
		return h.mu.changed, fmt.Errorf("%w: %w", ErrFenced, h.mu.permanent)
	case h.mu.stalled != nil:
		return h.mu.changed, fmt.Errorf("%w: %w", ErrStalled, h.mu.stalled)
	}
	return h.mu.changed, nil
}

func (h *health) changedLocked() {
	close(h.mu.changed)
	h.mu.changed = make(chan struct{})
}

// moved wakes who waits for background work.
func (h *health) moved() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changedLocked()
}

// fail records a permanent error; the first one counts.
func (h *health) fail(err error) {
	h.mu.Lock()
	first := h.mu.permanent == nil
	if first {
		h.mu.permanent = err
		h.changedLocked()
	}
	h.mu.Unlock()
	if !first {
		h.log.Debug("storage error behind the fence", "error", err)
		return
	}
	h.log.Error("storage failed, writes are refused until a restart", "dir", h.dir, "error", err)
	h.onError(&Fault{Dir: h.dir, Permanent: true, Err: err})
}

// background is Pebble's EventListener.BackgroundError. Pebble retries at once, so the retry is slowed down and the log
// rate-limited here.
func (h *health) background(err error) {
	h.gate.pause()
	now := time.Now()
	h.mu.Lock()
	if h.mu.permanent != nil {
		h.mu.Unlock()
		return
	}
	if h.mu.lastFlush != nil && errors.Is(err, h.mu.lastFlush) && h.mu.stalled == nil {
		h.mu.stalled = err
		h.changedLocked()
	}
	speak := now.Sub(h.mu.logged) >= 10*time.Second
	muted := h.mu.muted
	if speak {
		h.mu.logged, h.mu.muted = now, 0
	} else {
		h.mu.muted++
	}
	h.mu.Unlock()
	if speak {
		h.log.Error("background write failed, will retry", "dir", h.dir, "error", err, "not_logged", muted)
	}
	h.onError(&Fault{Dir: h.dir, Err: err})
}

// flushFailed is told by the flusher why it failed.
func (h *health) flushFailed(err error) {
	h.mu.Lock()
	h.mu.lastFlush = err
	h.mu.Unlock()
	h.background(err)
}

// flushed is told by the flusher that it succeeded, and is Pebble's EventListener.FlushEnd. Pebble also ends the flush of an empty memtable with an error here, which
// it does not report as a background error: hence only background decides that a flush failed.
func (h *health) flushed(err error) {
	h.mu.Lock()
	h.mu.lastFlush = err
	again := err == nil && h.mu.stalled != nil
	if again {
		h.mu.stalled = nil
	}
	h.changedLocked()
	h.mu.Unlock()
	if again {
		h.log.Info("background writes succeed again", "dir", h.dir)
	}
}

// Infof implements pebble.Logger.
func (h *health) Infof(format string, args ...any) {
	if h.log.IsTrace() {
		h.log.Trace("pebble", "message", fmt.Sprintf(format, args...))
	}
}

// Errorf implements pebble.Logger.
func (h *health) Errorf(format string, args ...any) {
	h.log.Error("pebble", "message", fmt.Sprintf(format, args...))
}

// Fatalf implements pebble.Logger. Pebble expects it not to return, and it must: ending the process would take the
// other shards down, and ending or blocking the goroutine here would leave DB.mu taken for ever. The errors of the disk
// that are fatal to Pebble do not come here, the gate keeps them. What does, in v2.1.7: a commit that failed, which
// DB.Apply then reports as a success, so that [Engine.Apply] looks again; failures while opening, which are returned as
// errors too; and broken invariants of Pebble's own, where the fence saves at least the files.
func (h *health) Fatalf(format string, args ...any) {
	h.gate.raise()
	h.fail(fmt.Errorf("pebble: "+format, args...))
}

// listener connects Pebble's events, and tells of flushes and compactions that ended, well or not.
func (h *health) listener(flush func(pebble.FlushInfo), compaction func(pebble.CompactionInfo), ingested func(pebble.TableIngestInfo)) *pebble.EventListener {
	l := &pebble.EventListener{
		BackgroundError: h.background,
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			h.fail(fmt.Errorf("file %s is damaged: %w", i.Path, i.Details))
		},
		FlushBegin: func(pebble.FlushInfo) { h.gate.flushBegins() },
		FlushEnd: func(i pebble.FlushInfo) {
			flush(i)
			h.flushed(i.Err)
		},
		CompactionEnd: func(i pebble.CompactionInfo) {
			compaction(i)
			h.moved()
		},
		TableIngested: ingested,
	}
	l.EnsureDefaults(h)
	return l
}
