// Package netpolltest lends the readings of pipes, for tests in simulated time.
package netpolltest

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/understudy-kv/understudy/internal/netpoll"
)

// Pipe is a pipe whose reading can be lent. What would wait gives up after a nanosecond, which in simulated time is when nobody
// else has anything to do.
type Pipe struct {
	net.Conn
	// Most is how many bytes TryWrite writes at a time; 0 for all.
	Most int
	// Tried counts the bytes that TryWrite has written, Served how often a lent reading was served.
	Tried, Served atomic.Int64

	ahead  []byte
	failed error
}

var _ netpoll.Lender = (*Pipe)(nil)

// TryRead is [netpoll.Lender]'s.
func (p *Pipe) TryRead(b []byte) (int, error) {
	if len(p.ahead) > 0 || p.failed != nil {
		n := copy(b, p.ahead)
		if p.ahead = p.ahead[n:]; n > 0 {
			return n, nil
		}
		return 0, p.failed
	}
	_ = p.SetReadDeadline(time.Now().Add(time.Nanosecond))
	n, err := p.Conn.Read(b)
	_ = p.SetReadDeadline(time.Time{})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = netpoll.ErrWouldBlock
	}
	return n, err
}

// Read is [net.Conn]'s.
func (p *Pipe) Read(b []byte) (int, error) {
	if len(p.ahead) > 0 || p.failed != nil {
		return p.TryRead(b)
	}
	return p.Conn.Read(b)
}

// More is [netpoll.Lender]'s.
func (p *Pipe) More() bool { return true }

// TryWrite is [netpoll.Lender]'s.
func (p *Pipe) TryWrite(b []byte) (int, error) {
	if p.Most > 0 && len(b) > p.Most {
		b = b[:p.Most]
	}
	_ = p.SetWriteDeadline(time.Now().Add(time.Nanosecond))
	n, err := p.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	p.Tried.Add(int64(n))
	return n, err
}

// Lend serves on the goroutine of its caller, which has nothing else to do meanwhile.
func (p *Pipe) Lend(serve func() bool, limit time.Duration) {
	buf := make([]byte, 4<<10)
	for until := time.Now().Add(limit); ; {
		_ = p.SetReadDeadline(until)
		n, err := p.Conn.Read(buf)
		_ = p.SetReadDeadline(time.Time{})
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		p.ahead, p.failed = buf[:n], err
		p.Served.Add(1)
		if !serve() {
			return
		}
	}
}

// SetLinger is [net.TCPConn]'s, if the pipe has it.
func (p *Pipe) SetLinger(sec int) error {
	if c, ok := p.Conn.(interface{ SetLinger(sec int) error }); ok {
		return c.SetLinger(sec)
	}
	return nil
}
