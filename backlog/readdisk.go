package backlog

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/wire"
)

// enterDiskLocked moves the cursor to the segment that has the reader's next frame. It returns a file to close.
func (r *Reader) enterDiskLocked() (idle vfs.File) {
	d, s := &r.disk, r.l.segmentLocked(r.next)
	if d.segment != s {
		idle = r.leaveDiskLocked()
		s.interest++
		d.segment, d.pos = s, -1
		if r.next == s.first {
			d.pos = SegmentHeaderSize
		}
	}
	d.size = s.size
	return idle
}

func (r *Reader) leaveDiskLocked() (idle vfs.File) {
	s := r.disk.segment
	if s == nil {
		return nil
	}
	r.disk.segment = nil
	s.interest--
	return s.idleLocked()
}

// fromDisk hands out whole frames up to published and limit bytes, or a piece of one, from the cursor's segment. Every
// byte is verified: a frame in pieces as a whole before its last piece is handed out.
func (r *Reader) fromDisk(published uint64, limit int) (Run, error) {
	d, l := &r.disk, r.l
	f, err := l.enter(d.segment)
	if err != nil {
		return Run{}, err
	}
	defer l.leave(d.segment)
	if d.pos < 0 {
		l.mu.Lock()
		m := d.segment.markLocked(r.next)
		l.mu.Unlock()
		if d.pos, err = walk(f, d.segment.path, m, d.size, r.next); err != nil {
			return Run{}, err
		}
	}
	limit = min(limit, defaultRun)
	if r.frame.left > 0 {
		return r.pieceFromDisk(f, limit)
	}
	b, err := r.load(f, int(min(int64(limit), d.size-d.pos)), limit)
	if err != nil {
		return Run{}, err
	}
	n := 0
	for r.next < published && n < len(b) {
		frame, err := wire.ParseFrame(b[n:])
		if errors.Is(err, wire.ErrShort) {
			if n == 0 {
				return r.firstFromDisk(b, limit)
			}
			break
		}
		if err != nil || frame.First != r.next || frame.Kind != wire.KindMutations {
			return Run{}, damaged(d.segment.path, d.pos+int64(n), r.next, frame.Header, err)
		}
		n += len(frame.Raw)
		r.next = frame.Next()
		r.digest = r.digest.Add(frame.CRC())
	}
	d.pos += int64(n)
	return Run{Bytes: b[:n:n], Next: r.next, Boundary: true, Digest: r.digest}, nil
}

// firstFromDisk begins a frame that does not fit in a run. b is the beginning of it.
func (r *Reader) firstFromDisk(b []byte, limit int) (Run, error) {
	d := &r.disk
	h, err := wire.ParseHeader(b)
	if err == nil && int64(h.Size()) > d.size-d.pos {
		err = fmt.Errorf("a frame of %d bytes runs past the end of what was appended", h.Size())
	}
	if err != nil || h.First != r.next || h.Kind != wire.KindMutations {
		return Run{}, damaged(d.segment.path, d.pos, r.next, h, err)
	}
	b = b[:min(len(b), pieceSize(h.Size(), limit))]
	r.frame.left, r.frame.next, r.frame.crc = h.Size(), h.Next(), wire.Checksum(0, b)
	d.pos += int64(len(b))
	return r.piece(b), nil
}

// pieceFromDisk goes on with a frame in pieces.
func (r *Reader) pieceFromDisk(f vfs.File, limit int) (Run, error) {
	d := &r.disk
	b, err := r.load(f, pieceSize(r.frame.left, limit), limit)
	if err != nil {
		return Run{}, err
	}
	body := b
	if len(b) == r.frame.left {
		body = b[:len(b)-wire.TrailerSize]
	}
	r.frame.crc = wire.Checksum(r.frame.crc, body)
	if len(body) < len(b) && r.frame.crc != trailer(b) {
		err := fmt.Errorf("%w: %08x, want %08x", wire.ErrCRC, trailer(b), r.frame.crc)
		return Run{}, damaged(d.segment.path, d.pos, r.next, wire.Header{}, err)
	}
	d.pos += int64(len(b))
	return r.piece(b), nil
}

// load reads n bytes, at most limit, at the cursor into the reader's buffer.
func (r *Reader) load(f vfs.File, n, limit int) ([]byte, error) {
	d := &r.disk
	if cap(d.buf) < n {
		d.buf = make([]byte, limit)
	}
	b := d.buf[:n]
	return b, readFull(f, d.segment.path, b, d.pos, r.next)
}
