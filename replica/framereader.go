package replica

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/understudy-kv/understudy/wire"
)

// A slab is a buffer that bytes are read into and that frames lie in. The reader holds it while it fills it, and every
// run of frames in the inbox holds it; who lets go last recycles it.
type slab struct {
	b    []byte
	refs atomic.Int32
	pool *sync.Pool // nil for the slab of one large frame
}

// A span is where a frame lies. The slab is nil if the frame's bytes are only good until the next one is read.
type span struct {
	slab     *slab
	from, to int
}

const (
	smallSlab = 64 << 10  // an idle link's
	largeSlab = 512 << 10 // when frames queue up, so that they are applied in large groups
	ownSlab   = 128 << 10 // a frame from this size on gets a slab of its own
)

var slabPools = map[int]*sync.Pool{smallSlab: {}, largeSlab: {}}

func newSlab(size int) *slab {
	pool := slabPools[size]
	s, _ := pool.Get().(*slab)
	if s == nil {
		s = &slab{b: make([]byte, size), pool: pool}
	}
	s.refs.Store(1)
	return s
}

func (s *slab) hold() { s.refs.Add(1) }

func (s *slab) release() {
	if s.refs.Add(-1) == 0 && s.pool != nil {
		s.pool.Put(s)
	}
}

// frameReader cuts a byte stream into checked frames. It reads as much at once as a slab takes, and never allocates
// from a length that arriving bytes have not backed. One goroutine uses it.
type frameReader struct {
	src io.Reader
	// waits is src for where to wait, if src returns netpoll.ErrWouldBlock instead; nil if it does not.
	waits io.Reader
	// limit is the largest payload accepted; 0 leaves it to the kind.
	limit uint32
	// reserve is called before a frame with mutations is read into a slab of its own. It waits until there is room.
	reserve func(n int) error
	// busy reports whether frames queue up.
	busy func() bool

	slab    *slab
	r, w    int // [r, w) of the slab is read and not yet given out
	scratch []byte
}

// next returns the next whole frame, with both checksums good, and where it lies. An error is io.EOF only between two
// frames.
func (fr *frameReader) next() (wire.Frame, span, error) {
	if fr.slab == nil {
		fr.slab = newSlab(smallSlab)
	}
	for {
		have := fr.slab.b[fr.r:fr.w]
		h, err := wire.ParseHeader(have)
		if err == nil && fr.limit != 0 && h.Length > fr.limit {
			return wire.Frame{}, span{}, fmt.Errorf("%w: a %s frame of %d bytes in the handshake, at most %d", wire.ErrTooLarge, h.Kind, h.Length, fr.limit)
		}
		switch {
		case err == wire.ErrShort:
			err = fr.more(wire.Header{})
		case err != nil:
		case len(have) >= h.Size():
			f, err := wire.ParseFrame(have[:h.Size()])
			at := span{slab: fr.slab, from: fr.r, to: fr.r + h.Size()}
			fr.r = at.to
			return f, at, err
		case h.Size() >= ownSlab && fr.r+h.Size() > len(fr.slab.b):
			return fr.large(h)
		default:
			err = fr.more(h)
		}
		if err != nil {
			return wire.Frame{}, span{}, err
		}
	}
}

// more reads once, into a slab that has room for the frame of which the header is known, if it is.
func (fr *frameReader) more(h wire.Header) error {
	if fr.w == len(fr.slab.b) || h.Length > 0 && fr.r+h.Size() > len(fr.slab.b) {
		fr.move(h.Size())
	}
	return fr.fill()
}

// ahead is the header of the frame that next returns without reading, or without a slab of its own. It reports false if there are
// not enough bytes for that, and an error where next would.
func (fr *frameReader) ahead() (h wire.Header, ok bool, err error) {
	if fr.slab == nil {
		return h, false, nil
	}
	have := fr.slab.b[fr.r:fr.w]
	h, err = wire.ParseHeader(have)
	if err == wire.ErrShort {
		return h, false, nil
	}
	return h, err == nil && len(have) >= h.Size(), err
}

// pending is what was read and not given out: behind an error of next, what it was about.
func (fr *frameReader) pending() []byte { return fr.slab.b[fr.r:fr.w] }

func (fr *frameReader) fill() error {
	if fr.r == fr.w && fr.slab.refs.Load() == 1 {
		fr.r, fr.w = 0, 0 // nothing in the inbox lies in it
	}
	n, err := fr.src.Read(fr.slab.b[fr.w:])
	fr.w += n
	if n > 0 {
		return nil
	}
	if err == io.EOF && fr.r < fr.w {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// move goes on in another slab, with room for size bytes, and takes the unfinished frame along.
func (fr *frameReader) move(size int) {
	n := smallSlab
	if size > smallSlab/4 || fr.busy() {
		n = largeSlab
	}
	next := newSlab(n)
	fr.w = copy(next.b, fr.slab.b[fr.r:fr.w])
	fr.r = 0
	fr.slab.release()
	fr.slab = next
}

// large reads a frame into a slab of its own, which doubles as its bytes arrive.
func (fr *frameReader) large(h wire.Header) (wire.Frame, span, error) {
	size := h.Size()
	keep := h.Kind == wire.KindMutations
	if keep && fr.reserve != nil {
		if err := fr.reserve(size); err != nil {
			return wire.Frame{}, span{}, err
		}
	}
	src := fr.src
	if fr.waits != nil {
		src = fr.waits
	}
	var buf []byte
	if !keep {
		buf = fr.scratch[:0]
	}
	buf = append(buf, fr.slab.b[fr.r:fr.w]...)
	fr.r = fr.w
	for len(buf) < size {
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), min(size, max(2*len(buf), largeSlab)))
			copy(grown, buf)
			buf = grown
		}
		n, err := src.Read(buf[len(buf):min(cap(buf), size)])
		buf = buf[:len(buf)+n]
		if n == 0 && err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return wire.Frame{}, span{}, err
		}
	}
	f, err := wire.ParseFrame(buf)
	if !keep {
		fr.scratch = buf
		return f, span{}, err
	}
	return f, span{slab: &slab{b: buf}, to: size}, err
}

// close gives the slab back.
func (fr *frameReader) close() {
	if fr.slab != nil {
		fr.slab.release()
		fr.slab = nil
	}
	fr.scratch = nil
}
