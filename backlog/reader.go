package backlog

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/wire"
)

// Run is a piece of the stream.
type Run struct {
	Bytes    []byte      // valid until the next Next or Close; not to be changed
	Next     uint64      // offset behind the last frame that ends in or before Bytes
	Boundary bool        // Bytes ends where a frame ends
	Digest   wire.Digest // of the frames that ended since the reader began
}

// Reader hands out the published stream from one offset on, each byte once and in order: from memory where memory has
// it, otherwise from the disk, and back, without a gap. One goroutine uses a Reader, Close included.
//
// It moves from one to the other only between frames. A frame that it has begun to hand out in pieces is finished from
// where it was begun: a slab stays pinned for it, a segment may be trimmed under it (ErrEvicted).
type Reader struct {
	l      *Log
	wake   chan struct{} // one token: look again
	armed  func()        // guarded by Log.mu: see Arm
	next   uint64        // offset of the frame to hand out, or being handed out
	digest wire.Digest
	err    error // final

	frame struct { // being handed out in pieces
		next uint64 // offset behind it
		left int    // bytes not handed out yet; 0 between frames
		crc  uint32 // of what was handed out, if it comes from the disk
	}
	memory struct {
		slab   *slab // pinned, or nil
		at     int   // where in it the reader is, or -1 if that has to be looked for
		end    int   // where what was committed when it was pinned ends
		known  *slab // the slab of the last run, which may have been reused since
		use    uint64
		offset uint64 // that at belongs to, if known is still what it was
	}
	disk struct {
		segment *segment // the cursor's, or nil
		pos     int64    // where in it the next byte lies, or -1 if that has to be looked for
		size    int64    // what was committed of it
		buf     []byte
	}
}

const (
	// defaultRun is the size of a run if the caller names none, and of a reader's buffer for the disk at most.
	defaultRun = 256 << 10
	// minRun is the smallest size of a run that is obeyed: a frame's header must fit.
	minRun = 512
)

// NewReader makes a reader that begins at offset from. It returns ErrEvicted if the log does not hold that any more,
// ErrFuture if it was not published yet and ErrMisaligned if it lies inside a frame.
func (l *Log) NewReader(from uint64) (*Reader, error) {
	s, pos, err := l.locate(from)
	if err != nil {
		return nil, err
	}
	r := &Reader{l: l, wake: make(chan struct{}, 1), next: from}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.heldLocked(from); err != nil {
		return nil, err
	}
	s.interest++
	r.disk.segment, r.disk.pos = s, pos
	return r, nil
}

// Next returns the next piece of the stream, of at most limit bytes (0 means 256 KiB; less than 512 counts as 512): whole
// frames where they fit, otherwise a piece of one. It waits until something is published. It returns ctx's error, which
// does no harm to the reader; the others are final: ErrClosed, ErrEvicted if the frames were trimmed under it, a
// [*CorruptError], or an error of the disk.
func (r *Reader) Next(ctx context.Context, limit int) (Run, error) {
	if r.err != nil {
		return Run{}, r.err
	}
	if limit <= 0 {
		limit = defaultRun
	}
	run, err := r.step(ctx, max(limit, minRun))
	if err != nil && (ctx.Err() == nil || !errors.Is(err, ctx.Err())) {
		r.err = err
	}
	return run, err
}

func (r *Reader) step(ctx context.Context, limit int) (Run, error) {
	published, err := r.await(ctx)
	switch {
	case err != nil:
		return Run{}, err
	case r.memory.slab != nil:
		return r.fromMemory(published, limit)
	}
	return r.fromDisk(published, limit)
}

// await waits until there is something to hand out, and takes hold of where it is: a pinned slab, or else a segment.
func (r *Reader) await(ctx context.Context) (published uint64, err error) {
	l := r.l
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		l.mu.Lock()
		published = l.published.Load()
		if r.frame.left > 0 { // it goes on where it was begun
			l.mu.Unlock()
			if errors.Is(l.failed(), ErrClosed) {
				err = ErrClosed
			}
			return published, err
		}
		r.unpinLocked()
		if err := l.heldLocked(r.next); err != nil {
			l.mu.Unlock()
			return 0, err
		}
		if r.next < published {
			f := r.holdLocked()
			l.mu.Unlock()
			l.discard(f)
			return published, nil
		}
		l.mu.waiting = append(l.mu.waiting, r)
		l.mu.Unlock()
		select {
		case <-r.wake:
		case <-ctx.Done():
			r.forget()
			return 0, ctx.Err()
		}
	}
}

// Arm is for who cannot wait in Next. It returns false if Next has something to hand out, or an error, without waiting. Otherwise it
// returns true, and f is called once, when that changes: by whoever publishes, behind the publication, or closes the log. f must not
// wait. The Reader is still for one goroutine at a time; who uses it beside f sees to that.
func (r *Reader) Arm(f func()) bool {
	l := r.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.armed != nil {
		return true
	}
	if r.err != nil || r.frame.left > 0 || r.next < l.published.Load() || l.heldLocked(r.next) != nil {
		return false
	}
	r.unpinLocked()
	r.armed = f
	l.mu.waiting = append(l.mu.waiting, r)
	return true
}

// Small reports whether what can be handed out now lies in memory and has at most limit bytes.
func (r *Reader) Small(limit int) bool {
	l, m := r.l, &r.memory
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.mu.memory.findLocked(r.next)
	if s == nil || s.next < l.published.Load() || r.frame.left > 0 {
		return false
	}
	at := 0
	if r.next != s.first {
		if m.known != s || m.use != s.use || m.offset != r.next {
			return false
		}
		at = m.at
	}
	return s.n-at <= limit
}

// holdLocked pins the slab that has the next frame, or else moves the disk's cursor to it. It returns a file to close.
func (r *Reader) holdLocked() vfs.File {
	if s := r.l.mu.memory.findLocked(r.next); s != nil {
		r.pinLocked(s)
		r.disk.buf = nil
		return r.leaveDiskLocked()
	}
	return r.enterDiskLocked()
}

// forget takes a reader that gave up off the list of those to wake.
func (r *Reader) forget() {
	l := r.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.dropWaitingLocked(r) {
		<-r.wake // woken at the same time
	}
}

// dropWaitingLocked takes r off the list of those to wake, and reports whether it was there.
func (l *Log) dropWaitingLocked(r *Reader) bool {
	for i, w := range l.mu.waiting {
		if w == r {
			n := len(l.mu.waiting) - 1
			l.mu.waiting[i], l.mu.waiting[n] = l.mu.waiting[n], nil
			l.mu.waiting = l.mu.waiting[:n]
			return true
		}
	}
	return false
}

// piece hands out b, the next bytes of the frame in pieces.
func (r *Reader) piece(b []byte) Run {
	r.frame.left -= len(b)
	if r.frame.left == 0 {
		r.next = r.frame.next
		r.digest = r.digest.Add(trailer(b))
	}
	return Run{Bytes: b, Next: r.next, Boundary: r.frame.left == 0, Digest: r.digest}
}

// pieceSize is how much of left bytes to hand out at once: never so that a frame's checksum is torn apart.
func pieceSize(left, limit int) int {
	switch {
	case left <= limit:
		return left
	case left-limit < wire.TrailerSize:
		return left - wire.TrailerSize
	}
	return limit
}

// Close gives back what the reader holds, and takes Arm back, unless its call has begun. A second Close does nothing.
func (r *Reader) Close() {
	l := r.l
	l.mu.Lock()
	if r.armed != nil {
		r.armed = nil
		l.dropWaitingLocked(r)
	}
	r.unpinLocked()
	f := r.leaveDiskLocked()
	l.mu.Unlock()
	l.discard(f)
	r.disk.buf = nil
	r.err = fmt.Errorf("%w: the reader", ErrClosed)
}
