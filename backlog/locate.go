package backlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/wire"
)

// trailer is a frame's checksum, from its last four bytes.
func trailer(b []byte) uint32 { return binary.LittleEndian.Uint32(b[len(b)-wire.TrailerSize:]) }

// heldLocked reports why frames from offset on cannot be read, or nil.
func (l *Log) heldLocked(offset uint64) error {
	if err := l.failed(); errors.Is(err, ErrClosed) {
		return ErrClosed
	}
	if oldest := l.oldestLocked(); offset < oldest {
		return fmt.Errorf("%w: offset %d, the oldest is %d", ErrEvicted, offset, oldest)
	}
	if published := l.published.Load(); offset > published {
		return fmt.Errorf("%w: offset %d, published up to %d", ErrFuture, offset, published)
	}
	return nil
}

// Boundary reports whether a frame ends, and the next one begins, at offset. It returns ErrEvicted for an offset that
// is no longer held and ErrFuture for one that was not published. It may read up to 64 KiB from the disk.
func (l *Log) Boundary(offset uint64) (bool, error) {
	_, _, err := l.locate(offset)
	if errors.Is(err, ErrMisaligned) {
		return false, nil
	}
	return err == nil, err
}

// locate finds the segment and the byte at which the frame that begins at offset lies, or will lie.
func (l *Log) locate(offset uint64) (*segment, int64, error) {
	l.mu.Lock()
	if err := l.heldLocked(offset); err != nil {
		l.mu.Unlock()
		return nil, 0, err
	}
	s := l.segmentLocked(offset)
	m, next, size := s.markLocked(offset), s.next, s.size
	l.mu.Unlock()
	switch offset {
	case m.offset:
		return s, m.pos, nil
	case next:
		return s, size, nil
	}
	f, err := l.enter(s)
	if err != nil {
		return nil, 0, err
	}
	defer l.leave(s)
	pos, err := walk(f, s.path, m, size, offset)
	return s, pos, err
}

// walk goes from frame to frame, beginning at a mark, until it finds the one that begins at offset.
func walk(f vfs.File, path string, m mark, end int64, offset uint64) (int64, error) {
	buf := make([]byte, min(end-m.pos, indexEvery+wire.HeaderSize))
	var b []byte // what is left of buf from the current frame on
	for m.offset < offset {
		if len(b) < wire.HeaderSize {
			n := min(end-m.pos, int64(len(buf)))
			if err := readFull(f, path, buf[:n], m.pos, m.offset); err != nil {
				return 0, err
			}
			b = buf[:n]
		}
		h, err := wire.ParseHeader(b)
		if err != nil || h.First != m.offset {
			return 0, damaged(path, m.pos, m.offset, h, err)
		}
		m.offset, m.pos = h.Next(), m.pos+int64(h.Size())
		b = b[min(h.Size(), len(b)):]
	}
	if m.offset != offset {
		return 0, fmt.Errorf("%w: offset %d lies inside a frame that ends at %d", ErrMisaligned, offset, m.offset)
	}
	return m.pos, nil
}

// readFull reads b from pos. A file that is shorter than what was appended to it is corrupt.
func readFull(f vfs.File, path string, b []byte, pos int64, offset uint64) error {
	n, err := f.ReadAt(b, pos)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return &CorruptError{File: path, Byte: pos + int64(n), Offset: offset, Reason: "the file ends before what was appended to it"}
	}
	return fmt.Errorf("backlog: reading %s: %w", path, err)
}

// damaged is the error for a frame read from a segment that is not the one which must be there.
func damaged(path string, pos int64, offset uint64, h wire.Header, err error) error {
	if err == nil {
		err = fmt.Errorf("a %s frame from offset %d, want mutations from %d", h.Kind, h.First, offset)
	}
	return &CorruptError{File: path, Byte: pos, Offset: offset, Reason: err.Error()}
}
