package faultproxy

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"

	"github.com/understudy-kv/understudy/internal/ports"
)

// Options says where a Proxy listens and what it stands in front of.
type Options struct {
	// Host is the address to listen on. Default 127.0.0.1.
	Host string
	// Port is the first port to listen on. Default 0: a free row of ports.
	Port int
	// Target is the server's address, "host:port"; port+i is served by the proxy's i-th port. Required.
	Target string
	// Ports is how many ports in a row are forwarded. Default 1.
	Ports int
}

// Proxy is a running proxy. Its methods may be called from any goroutine.
type Proxy struct {
	host       string
	port       int
	targetHost string
	targetPort int
	ports      int
	release    func() error   // of the ports, nil if the caller chose them
	wg         sync.WaitGroup // accept loops and connections

	mu struct {
		sync.Mutex
		faults    [2]faults
		changed   chan struct{} // closed and replaced whenever faults or closed change
		listeners []net.Listener
		links     map[*link]struct{}
		accepted  uint64
		closed    bool
	}
}

// Start listens and forwards until Close.
func Start(o Options) (*Proxy, error) {
	host, portText, err := net.SplitHostPort(o.Target)
	if err != nil {
		return nil, fmt.Errorf("faultproxy: target %q: want host:port: %w", o.Target, err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, fmt.Errorf("faultproxy: target %q: the port is not a number", o.Target)
	}
	p := &Proxy{host: o.Host, port: o.Port, targetHost: host, targetPort: port, ports: max(o.Ports, 1)}
	if p.host == "" {
		p.host = "127.0.0.1"
	}
	if p.port == 0 {
		// Held while the proxy refuses connections, too.
		if p.port, p.release, err = ports.Reserve(p.host, p.ports); err != nil {
			return nil, err
		}
	}
	p.mu.changed = make(chan struct{})
	p.mu.links = make(map[*link]struct{})
	if err := p.Refuse(false); err != nil {
		return nil, err
	}
	return p, nil
}

// Addr is the address of the first port, "host:port".
func (p *Proxy) Addr() string { return net.JoinHostPort(p.host, strconv.Itoa(p.port)) }

func (p *Proxy) target(i int) string {
	return net.JoinHostPort(p.targetHost, strconv.Itoa(p.targetPort+i))
}

// Accepted tells how many connections were accepted since the start, over all ports.
func (p *Proxy) Accepted() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.accepted
}

// Cut resets every connection at once, both ends. New ones are accepted unless Refuse says otherwise.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.mu.links {
		l.reset()
	}
}

// Refuse closes the listening ports, so that dialling them is refused by the kernel, or opens them again. Connections
// that exist go on.
func (p *Proxy) Refuse(on bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if on || p.mu.closed {
		for _, l := range p.mu.listeners {
			l.Close()
		}
		p.mu.listeners = nil
		return nil
	}
	if len(p.mu.listeners) > 0 {
		return nil
	}
	for i := range p.ports {
		l, err := net.Listen("tcp", net.JoinHostPort(p.host, strconv.Itoa(p.port+i)))
		if err != nil {
			for _, l := range p.mu.listeners {
				l.Close()
			}
			p.mu.listeners = nil
			return fmt.Errorf("faultproxy: %w", err)
		}
		p.mu.listeners = append(p.mu.listeners, l)
	}
	for i, l := range p.mu.listeners {
		// Refuse starts one accept loop a port. It owns the listener's accepting side and ends when the listener is
		// closed, by Refuse or Close; Close waits for it.
		p.wg.Go(func() { p.accept(l, i) })
	}
	return nil
}

// Down cuts every connection and refuses new ones; Up ends that.
func (p *Proxy) Down() error {
	err := p.Refuse(true)
	p.Cut()
	return err
}

// Up accepts connections again.
func (p *Proxy) Up() error { return p.Refuse(false) }

func (p *Proxy) accept(l net.Listener, i int) {
	for {
		c, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		p.mu.Lock()
		if p.mu.closed {
			p.mu.Unlock()
			c.Close()
			return
		}
		link := newLink(p, c.(*net.TCPConn), p.target(i))
		p.mu.links[link] = struct{}{}
		p.mu.accepted++
		// The accept loop starts one goroutine a connection. It owns both sockets and ends when both directions have
		// ended or the link was reset; Close resets every link and waits for it.
		p.wg.Go(link.run)
		p.mu.Unlock()
	}
}

func (p *Proxy) forget(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.mu.links, l)
}

func (p *Proxy) wakeLocked() {
	close(p.mu.changed)
	p.mu.changed = make(chan struct{})
}

// Close refuses new connections, resets the present ones, and waits until nothing of the proxy is left.
func (p *Proxy) Close() error {
	p.mu.Lock()
	if !p.mu.closed {
		p.mu.closed = true
		p.wakeLocked()
	}
	p.mu.Unlock()
	err := p.Down()
	p.wg.Wait()
	if p.release != nil {
		err = errors.Join(err, p.release())
		p.release = nil
	}
	return err
}
