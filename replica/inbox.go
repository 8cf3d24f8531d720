package replica

import (
	"errors"
	"sync"

	"github.com/understudy-kv/understudy/internal/netpoll"
	"github.com/understudy-kv/understudy/wire"
)

var errInboxClosed = errors.New("inbox is closed")

// A run is whole, checked, contiguous frames that lie one behind the other in a slab: what is applied at once.
type run struct {
	span
	first, next uint64
}

func (r run) frames() []byte { return r.slab.b[r.from:r.to] }

// inbox holds frames between the reader and the applier, bounded in bytes. A full inbox makes the reader wait, which
// fills the socket's buffers, which makes the primary wait: nothing is dropped and nothing grows (pitfall 38).
//
// The applier is woken for what is worth it. For a little, which is what a client without a pipeline writes, the wake-up would
// cost more than the work: the reader, before it reads on, takes that for itself if the applier has nothing to do.
//
//  1. What is held, plus what is being applied, is at most limit bytes; or it is one single frame (pitfall 29).
//  2. Frames leave in the order in which they came, each once.
//  3. After close nothing enters. What is inside still leaves, unless it was dropped.
//  4. At most one run is out: from take or takeSmall to release.
//  5. While the reader waits, for bytes or for room, the applier knows of what is queued.
type inbox struct {
	limit int64
	// waiting is told when put or reserve begins and ceases to wait.
	waiting func(bool)

	mu struct {
		sync.Mutex
		runs     []run
		head     int // runs[head:] are queued
		bytes    int64
		reserved int64 // of bytes, for the frame that is being read
		out      bool  // a run was taken and not released
		closed   bool
	}
	room  sync.Cond // bytes fell, or closed
	ready sync.Cond // a run was queued, or closed
}

func newInbox(limit int64, waiting func(bool)) *inbox {
	b := &inbox{limit: limit, waiting: waiting}
	b.room.L, b.ready.L = &b.mu.Mutex, &b.mu.Mutex
	return b
}

// reserve waits until a frame of n bytes may enter, before its bytes are read. The put that follows uses it up.
func (b *inbox) reserve(n int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.waitLocked(int64(n)); err != nil {
		return err
	}
	b.mu.bytes += int64(n)
	b.mu.reserved = int64(n)
	return nil
}

func (b *inbox) waitLocked(n int64) error {
	if b.mu.closed {
		return errInboxClosed
	}
	if b.mu.bytes == 0 || b.mu.bytes+n <= b.limit {
		return nil
	}
	b.wakeApplier()
	b.waiting(true)
	defer b.waiting(false)
	for b.mu.bytes != 0 && b.mu.bytes+n > b.limit && !b.mu.closed {
		b.room.Wait()
	}
	if b.mu.closed {
		return errInboxClosed
	}
	return nil
}

// admits reports whether a frame of n bytes can be put without waiting.
func (b *inbox) admits(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.closed || b.mu.bytes == 0 || b.mu.bytes+int64(n) <= b.limit
}

// put queues a frame, which lies at the span, and waits for room first.
func (b *inbox) put(f wire.Frame, at span) error {
	n := int64(len(f.Raw))
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.reserved > 0 {
		b.mu.bytes -= b.mu.reserved
		b.mu.reserved = 0
		if b.mu.closed {
			return errInboxClosed
		}
	} else if err := b.waitLocked(n); err != nil {
		return err
	}
	b.mu.bytes += n
	if b.mu.bytes > small {
		defer b.wakeApplier()
	}
	if k := len(b.mu.runs); k > b.mu.head {
		if last := &b.mu.runs[k-1]; last.slab == at.slab && last.to == at.from {
			last.to, last.next = at.to, f.Next()
			return nil
		}
	}
	at.slab.hold()
	b.mu.runs = append(b.mu.runs, run{span: at, first: f.First, next: f.Next()})
	return nil
}

// small is how many bytes of frames the reader applies itself.
const small = 32 << 10

// takeSmall returns what is queued if that is one small run and the applier is idle. Otherwise it wakes the applier, if there is
// anything.
func (b *inbox) takeSmall() (run, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.mu.runs) - b.mu.head
	if n == 1 && b.mu.bytes <= small && !b.mu.out && !b.mu.closed {
		return b.takeLocked(), true
	}
	if n > 0 {
		b.wakeApplier()
	}
	return run{}, false
}

func (b *inbox) wakeApplier() {
	b.ready.Signal()
	netpoll.Wake()
}

// hand wakes the applier, if there is anything.
func (b *inbox) hand() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.mu.runs) > b.mu.head {
		b.wakeApplier()
	}
}

// giveBack undoes takeSmall, and wakes the applier for the run.
func (b *inbox) giveBack(r run) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.out = false
	b.mu.runs, b.mu.head = append(b.mu.runs[:0], r), 0
	b.wakeApplier()
}

// take returns the oldest run, and waits for one. The caller gives it back by release. It reports false when the inbox
// is closed and empty.
func (b *inbox) take() (run, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.mu.runs) == b.mu.head && !b.mu.closed {
		b.ready.Wait()
	}
	if len(b.mu.runs) == b.mu.head {
		return run{}, false
	}
	return b.takeLocked(), true
}

func (b *inbox) takeLocked() run {
	b.mu.out = true
	r := b.mu.runs[b.mu.head]
	b.mu.runs[b.mu.head] = run{}
	b.mu.head++
	if b.mu.head == len(b.mu.runs) {
		b.mu.runs, b.mu.head = b.mu.runs[:0], 0
	} else if b.mu.head >= 64 && b.mu.head*2 >= len(b.mu.runs) {
		n := copy(b.mu.runs, b.mu.runs[b.mu.head:])
		clear(b.mu.runs[n:])
		b.mu.runs, b.mu.head = b.mu.runs[:n], 0
	}
	return r
}

// release makes room of what take or takeSmall returned.
func (b *inbox) release(r run) {
	b.mu.Lock()
	b.mu.bytes -= int64(r.to - r.from)
	b.mu.out = false
	b.mu.Unlock()
	b.room.Signal()
	r.slab.release()
}

// close lets nothing more in; with drop, what is queued is forgotten.
func (b *inbox) close(drop bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.closed = true
	if drop {
		for _, r := range b.mu.runs[b.mu.head:] {
			b.mu.bytes -= int64(r.to - r.from)
			r.slab.release()
		}
		b.mu.runs, b.mu.head = nil, 0
	}
	b.room.Broadcast()
	b.ready.Broadcast()
}

// size is how many bytes are held.
func (b *inbox) size() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.bytes
}

// queued reports whether frames wait for the applier.
func (b *inbox) queued() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.mu.runs) > b.mu.head
}
