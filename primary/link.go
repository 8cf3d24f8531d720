package primary

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/understudy-kv/understudy/internal/netpoll"
	"github.com/understudy-kv/understudy/wire"
)

// The limits of a link in time. They are part of the protocol: both sides count on them. A fault is to be noticed within
// 10 s by everybody who looks; the limits leave a second of that for what comes behind them.
const (
	// HandshakeTimeout is how long a connection may take for its whole HELLO.
	HandshakeTimeout = 9 * time.Second
	// SilenceTimeout is how long an accepted replica may say nothing at all.
	SilenceTimeout = 9 * time.Second
	// WriteTimeout is how long a write may be stuck without one byte of progress.
	WriteTimeout = 9 * time.Second
	// HeartbeatInterval is the time between two heartbeats.
	HeartbeatInterval = time.Second
	// byeTimeout is what a session that ends leaves its last write.
	byeTimeout = 500 * time.Millisecond
	// stretch is what one wait counts for at most, of SilenceTimeout: what is beyond, this process slept through, or its machine.
	// Meanwhile it could not hear, and where both ends slept, neither could say anything. netpoll.WriteStep is the same of WriteTimeout.
	stretch = 3 * time.Second
)

// Limits of what is read, in bytes of payload.
const (
	maxFetch = 8 << 20 // room for 700,000 files
	maxSmall = 64 << 10
)

var (
	errSilent = errors.New("the replica was silent")
	errStuck  = errors.New("a write to the replica was stuck")
)

// link is one connection: frames in, bytes out. One goroutine reads and one writes; end may be called by any.
type link struct {
	conn   net.Conn
	lender netpoll.Lender // conn, if its reading can be lent
	ended  atomic.Bool

	buf  []byte // read and not yet used: buf[from:to]
	from int
	to   int

	heard  time.Time     // when something came, if the reading is lent
	silent time.Duration // for how long nothing has come, without what was slept through
	failed error         // why reading ended while it was lent
}

func newLink(conn net.Conn) *link { return &link{conn: conn, buf: make([]byte, 4<<10)} }

// read returns the next frame, which is valid until the next call. The peer must have sent all of it by the deadline;
// with a zero deadline it must only never be silent for [SilenceTimeout]. limit is the largest payload of a kind that
// is believed: no buffer grows because of what a peer announces, only with what it has sent.
func (l *link) read(limit func(wire.Kind) uint32, deadline time.Time) (wire.Frame, error) {
	for {
		f, err := l.next(limit)
		if err != wire.ErrShort {
			return f, err
		}
		if err := l.fill(deadline); err != nil {
			return wire.Frame{}, err
		}
	}
}

// next is the next frame if all of it has come, and otherwise wire.ErrShort.
func (l *link) next(limit func(wire.Kind) uint32) (wire.Frame, error) {
	have := l.buf[l.from:l.to]
	h, err := wire.ParseHeader(have)
	if err == nil {
		if most := limit(h.Kind); h.Length > most {
			return wire.Frame{}, fmt.Errorf("%w: a %s frame of %d bytes, at most %d here", wire.ErrTooLarge, h.Kind, h.Length, most)
		}
		var f wire.Frame
		if f, err = wire.ParseFrame(have); err == nil {
			l.from += len(f.Raw)
			return f, nil
		}
	}
	if errors.Is(err, wire.ErrShort) {
		err = wire.ErrShort
	}
	return wire.Frame{}, err
}

// unread takes the last frame back.
func (l *link) unread(f wire.Frame) { l.from -= len(f.Raw) }

// adopt has the connection waited for in another way. Nobody else uses it yet.
func (l *link) adopt(by func(net.Conn) net.Conn) {
	l.conn = by(l.conn)
	l.lender, _ = l.conn.(netpoll.Lender)
}

// listen waits for bytes: by lending the reading to serve, which hears what it can.
func (l *link) listen(serve func() bool) error {
	if l.lender == nil {
		return l.fill(time.Time{})
	}
	err := l.hear()
	if err != netpoll.ErrWouldBlock {
		return err
	}
	if l.silent >= SilenceTimeout {
		return fmt.Errorf("%w for %v", errSilent, SilenceTimeout)
	}
	l.heard = time.Now()
	l.lender.Lend(serve, min(SilenceTimeout-l.silent, stretch))
	l.silent += min(time.Since(l.heard), stretch)
	return nil
}

// hear reads what has come, if there is anything.
func (l *link) hear() error {
	if l.failed == nil {
		l.room()
		n, err := l.lender.TryRead(l.buf[l.to:])
		if l.to += n; n > 0 {
			l.heard, l.silent = time.Now(), 0
			return nil
		}
		if err == netpoll.ErrWouldBlock {
			return err
		}
		l.failed = ended(err)
	}
	return l.failed
}

// room makes some in the buffer.
func (l *link) room() {
	switch {
	case l.from == l.to:
		l.from, l.to = 0, 0
	case l.to == len(l.buf) && l.from > 0:
		l.to = copy(l.buf, l.buf[l.from:l.to])
		l.from = 0
	}
	if l.to == len(l.buf) {
		l.buf = append(l.buf, make([]byte, len(l.buf))...)
	}
}

// fill reads more bytes, and makes room for them first.
func (l *link) fill(deadline time.Time) error {
	l.room()
	for {
		until := deadline
		if until.IsZero() {
			until = time.Now().Add(stretch)
		}
		if err := l.conn.SetReadDeadline(until); err != nil {
			return err
		}
		n, err := l.conn.Read(l.buf[l.to:])
		if l.to += n; n > 0 {
			l.silent = 0
			return nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return ended(err)
		}
		if l.silent += stretch; l.silent >= SilenceTimeout || !deadline.IsZero() {
			return fmt.Errorf("%w for %v", errSilent, SilenceTimeout)
		}
	}
}

// ended is the error of a connection that ended.
func ended(err error) error {
	if err == io.EOF {
		return fmt.Errorf("the other side closed the connection: %w", err)
	}
	return err
}

// write sends all of b. It fails with errStuck when not one byte goes out for WriteTimeout; a slow link that moves is
// left alone, however long b is (pitfalls 29, 31).
func (l *link) write(b []byte) error {
	stuck, err := netpoll.WriteAll(l.conn, b, WriteTimeout, byeTimeout, l.ended.Load)
	if stuck > 0 {
		return fmt.Errorf("%w for %v", errStuck, stuck)
	}
	return err
}

// end gives whatever is being written a last moment.
func (l *link) end() {
	l.ended.Store(true)
	l.conn.SetWriteDeadline(time.Now().Add(byeTimeout)) // fails only on a closed connection
}

// reset has the connection's close be heard at once by a replica that hears anything: the orderly end of a TCP stream waits
// behind all that was not acknowledged, which may be for ever where nobody answers.
func (l *link) reset() {
	if c, ok := l.conn.(interface{ SetLinger(sec int) error }); ok {
		_ = c.SetLinger(0) // without it the other side takes longer
	}
}

// helloLimit admits only a HELLO or a TAKEOVER, of a size that needs no trust.
func helloLimit(k wire.Kind) uint32 {
	if k == wire.KindHello || k == wire.KindTakeover {
		return wire.MaxHandshake
	}
	return 0
}

// takeoverLimit admits only a TAKEOVER.
func takeoverLimit(k wire.Kind) uint32 {
	if k == wire.KindTakeover {
		return wire.MaxHandshake
	}
	return 0
}

// sessionLimit admits what a replica has to say.
func sessionLimit(k wire.Kind) uint32 {
	switch k {
	case wire.KindFetch:
		return maxFetch
	case wire.KindWantKeys:
		return wire.MaxWantBytes
	}
	return maxSmall
}
