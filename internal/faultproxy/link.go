package faultproxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const (
	chunkSize  = 16 << 10
	chunkQueue = 64 // 1 MiB a direction may be on its way: what a delayed line holds
)

// link is one connection through the proxy.
type link struct {
	proxy  *Proxy
	addr   string
	client *net.TCPConn
	done   chan struct{} // closed by reset
	once   sync.Once

	mu struct {
		sync.Mutex
		server *net.TCPConn // nil until dialled
		reset  bool
	}
}

// chunk is a piece of the stream on its way. A chunk without data is the stream's end.
type chunk struct {
	data []byte
	due  time.Time
	err  error // with no data: io.EOF for an orderly end, anything else for a reset
}

func newLink(p *Proxy, client *net.TCPConn, addr string) *link {
	return &link{proxy: p, addr: addr, client: client, done: make(chan struct{})}
}

// reset closes both ends at once, so that each sees a reset rather than an orderly end. It may be called often.
func (l *link) reset() {
	l.once.Do(func() { close(l.done) })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.reset = true
	for _, c := range []*net.TCPConn{l.client, l.mu.server} {
		if c != nil {
			c.SetLinger(0)
			c.Close()
		}
	}
}

func (l *link) run() {
	defer l.proxy.forget(l)
	server := l.dial()
	if server == nil {
		l.reset()
		return
	}
	var both sync.WaitGroup
	// run starts one pump a direction and waits for both. A pump ends when its direction has ended or the link is reset.
	both.Go(func() { l.pump(ToServer, l.client, server) })
	// The same for the other direction.
	both.Go(func() { l.pump(ToClient, server, l.client) })
	both.Wait()
	l.client.Close()
	server.Close()
}

// dial connects to the target, once the way there is open (invariant 2). It returns nil if the link is not to be.
func (l *link) dial() *net.TCPConn {
	if !l.open(ToServer) {
		return nil
	}
	c, err := net.DialTimeout("tcp", l.addr, 10*time.Second)
	if err != nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.reset {
		c.Close()
		return nil
	}
	l.mu.server = c.(*net.TCPConn)
	return l.mu.server
}

// open waits while the direction is a black hole. It reports false when the link was reset or the proxy closed.
func (l *link) open(d Direction) bool {
	for {
		l.proxy.mu.Lock()
		hole, changed := l.proxy.mu.faults[d].hole, l.proxy.mu.changed
		l.proxy.mu.Unlock()
		if !hole {
			return true
		}
		select {
		case <-changed:
		case <-l.done:
			return false
		}
	}
}

// wait lets d pass. It reports false when the link was reset meanwhile.
func (l *link) wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.done:
		return false
	}
}

// pump carries one direction until its end has been delivered or the link is reset.
func (l *link) pump(d Direction, src, dst *net.TCPConn) {
	queue, stop := make(chan chunk, chunkQueue), make(chan struct{})
	var reader sync.WaitGroup
	// pump starts the goroutine that reads src, so that delayed bytes can queue up. It ends with src's stream, which
	// whoever ends pump has closed, or when pump wants no more; pump waits for it.
	reader.Go(func() { l.read(d, src, queue, stop) })
	defer reader.Wait()
	defer close(stop)
	for c := range queue {
		if !l.wait(time.Until(c.due)) || !l.open(d) {
			l.reset()
			return
		}
		if c.err != nil {
			if errors.Is(c.err, io.EOF) && dst.CloseWrite() == nil {
				return
			}
			l.reset()
			return
		}
		if !l.deliver(d, src, dst, c.data) {
			return
		}
	}
}

func (l *link) read(d Direction, src *net.TCPConn, queue chan<- chunk, stop <-chan struct{}) {
	defer close(queue)
	for {
		buf := make([]byte, chunkSize)
		n, err := src.Read(buf)
		l.proxy.mu.Lock()
		due := time.Now().Add(l.proxy.mu.faults[d].delay)
		l.proxy.mu.Unlock()
		for _, c := range []chunk{{data: buf[:n], due: due}, {due: due, err: err}} {
			if len(c.data) == 0 && c.err == nil {
				continue
			}
			select {
			case queue <- c:
			case <-stop:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// deliver writes data, damaged and cut as the faults say. It reports whether the direction goes on.
func (l *link) deliver(d Direction, src, dst *net.TCPConn, data []byte) bool {
	l.proxy.mu.Lock()
	v, rate := l.proxy.mu.faults[d].judge(len(data)), l.proxy.mu.faults[d].rate
	l.proxy.mu.Unlock()
	if v.flip >= 0 {
		data[v.flip] ^= 0x10
	}
	for rest := data[:v.pass]; len(rest) > 0; {
		piece := rest
		if rate > 0 { // a fiftieth of a second at a time
			piece = rest[:min(len(rest), max(int(rate/50), 1))]
		}
		if _, err := dst.Write(piece); err != nil {
			// The receiver is gone. Its reset travels the other way, so a black hole there hides it (invariant 2).
			l.open(d.opposite())
			l.reset()
			return false
		}
		rest = rest[len(piece):]
		if rate > 0 && !l.wait(time.Duration(int64(len(piece))*int64(time.Second)/rate)) {
			return false
		}
	}
	if v.cut {
		// A reset would throw away what the kernel still holds for the receiver, so only the sender gets one.
		dst.CloseWrite()
		src.SetLinger(0)
		src.Close()
	}
	return !v.cut
}
