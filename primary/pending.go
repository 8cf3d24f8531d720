package primary

import (
	"net"
	"slices"
	"sync"
)

// pending are a port's connections that have not said HELLO yet. There is room for max; when one more comes, the one
// that has been silent for longest is closed. A replica says HELLO at once, so however many idle connections somebody
// opens, it finds room.
type pending struct {
	max int
	mu  struct {
		sync.Mutex
		conns []net.Conn // oldest first
	}
}

// add takes conn in and reports whether another one had to go.
func (p *pending) add(conn net.Conn) (crowded bool) {
	p.mu.Lock()
	var oldest net.Conn
	if len(p.mu.conns) >= p.max {
		oldest = p.mu.conns[0]
		p.mu.conns = slices.Delete(p.mu.conns, 0, 1)
	}
	p.mu.conns = append(p.mu.conns, conn)
	p.mu.Unlock()
	if oldest == nil {
		return false
	}
	oldest.Close() // its goroutine sees a read fail, and ends
	return true
}

// remove forgets conn.
func (p *pending) remove(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.mu.conns, conn); i >= 0 {
		p.mu.conns = slices.Delete(p.mu.conns, i, i+1)
	}
}

// closeAll ends every handshake.
func (p *pending) closeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.mu.conns {
		c.Close()
	}
}
