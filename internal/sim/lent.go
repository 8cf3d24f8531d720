package sim

import (
	"io"
	"net"
	"time"

	"github.com/understudy-kv/understudy/internal/netpoll"
)

// lentConn is a connection whose reading can be lent, as those of the programs are. Its TryWrite is a full socket's at times.
type lentConn struct{ *conn }

var _ netpoll.Lender = lentConn{}

// adopt gives half of the processes such connections.
func (i *incarnation) adopt(c net.Conn) net.Conn {
	h := i.host
	if c, ok := c.(*conn); ok && (h.world.sc.Seed>>1+uint64(h.id)+uint64(h.life))%2 == 0 {
		return lentConn{c}
	}
	return c
}

func (c lentConn) TryRead(b []byte) (int, error) {
	p := c.in
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.readErr != nil:
		return 0, p.readErr
	case len(p.ready) > 0:
		n := copy(b, p.ready)
		p.ready = p.ready[n:]
		p.flight -= n
		p.changedLocked()
		return n, nil
	case p.ended:
		return 0, io.EOF
	}
	return 0, netpoll.ErrWouldBlock
}

func (c lentConn) More() bool {
	p := c.in
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.moreLocked()
}

func (p *pipe) moreLocked() bool { return len(p.ready) > 0 || p.ended || p.readErr != nil }

func (c lentConn) TryWrite(b []byte) (int, error) {
	c.write.Lock()
	defer c.write.Unlock()
	p := c.out
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sendErr != nil {
		return 0, p.sendErr
	}
	n := min(window-p.flight, len(b))
	if n > 0 && p.rng.IntN(8) == 0 {
		n = p.rng.IntN(n)
	}
	if n <= 0 {
		return 0, nil
	}
	if p.tap != nil {
		p.tap(b[:n])
	}
	p.launchLocked(b[:n])
	return n, nil
}

// Lend serves on the goroutine of its caller, which has nothing else to do meanwhile.
func (c lentConn) Lend(serve func() bool, limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	p := c.in
	for {
		p.mu.Lock()
		more, changed := p.moreLocked(), p.changed
		p.mu.Unlock()
		if more {
			if !serve() {
				return
			}
			continue
		}
		select {
		case <-changed:
		case <-timer.C:
			return
		}
	}
}
