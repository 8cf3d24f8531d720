package backlog

import (
	"fmt"

	"github.com/understudy-kv/understudy/wire"
)

// pinLocked pins the slab that has the reader's next frame, and finds out whether the reader knows where in it.
func (r *Reader) pinLocked(s *slab) {
	m := &r.memory
	s.refs++
	m.slab = s
	switch {
	case m.known == s && m.use == s.use && m.offset == r.next:
	case r.next == s.first:
		m.at = 0
	default:
		m.at = -1
	}
	m.known, m.use, m.end = s, s.use, s.n
}

func (r *Reader) unpinLocked() {
	if r.memory.slab != nil {
		r.l.mu.memory.unpinLocked(r.memory.slab)
		r.memory.slab = nil
	}
}

// seekMemory finds the reader's frame in the pinned slab.
func (r *Reader) seekMemory() error {
	m := &r.memory
	at := 0
	for offset := m.slab.first; offset < r.next; {
		h, err := wire.ParseHeader(m.slab.buf[at:m.end])
		if err != nil {
			return r.damagedMemory(at, offset, err)
		}
		at, offset = at+h.Size(), h.Next()
	}
	m.at = at
	return nil
}

// fromMemory hands out whole frames up to published and limit bytes, or a piece of one, from the pinned slab.
func (r *Reader) fromMemory(published uint64, limit int) (Run, error) {
	m := &r.memory
	if m.at < 0 {
		if err := r.seekMemory(); err != nil {
			return Run{}, err
		}
	}
	b, n := m.slab.buf[m.at:m.end], 0
	for r.frame.left == 0 && r.next < published && n < len(b) {
		h, err := wire.ParseHeader(b[n:])
		if err != nil || h.First != r.next || h.Size() > len(b)-n {
			return Run{}, r.damagedMemory(m.at+n, r.next, err)
		}
		if n+h.Size() > limit {
			if n == 0 {
				r.frame.left, r.frame.next = h.Size(), h.Next()
			}
			break
		}
		n += h.Size()
		r.next = h.Next()
		r.digest = r.digest.Add(trailer(b[:n]))
	}
	run := Run{Bytes: b[:n:n], Next: r.next, Boundary: true, Digest: r.digest}
	if r.frame.left > 0 {
		n = pieceSize(r.frame.left, limit)
		run = r.piece(b[:n:n])
	}
	m.at += n
	m.offset = r.next
	return run, nil
}

// damagedMemory is the error for a slab that does not hold what was copied into it.
func (r *Reader) damagedMemory(at int, offset uint64, err error) error {
	if err == nil {
		err = fmt.Errorf("not the frame from offset %d", offset)
	}
	return &CorruptError{File: "memory", Byte: int64(at), Offset: offset, Reason: err.Error()}
}
