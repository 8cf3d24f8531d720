package server

import (
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/understudy-kv/understudy/internal/netpoll"
)

// acceptAtOnce is how many connections are accepted before the others are served again.
const acceptAtOnce = 16

// socketOptions are those of a client's socket.
var socketOptions = [...]struct{ level, name, value int }{
	{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(keepAlive / time.Second)},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(keepAliveAgain / time.Second)},
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAliveCount},
}

// An acceptor is a listener whose connections are accepted by a reactor. A goroutine that waits for them in the Go runtime is told late
// where the reactors and who works in the background keep all processors: nobody looks at the runtime's network but its
// monitor, once in 10 ms. Accept returns only why nothing is accepted any more; when it is called again, it goes on.
type acceptor struct {
	s          *Server
	r          *reactor
	addr       net.Addr
	at, number int32      // its seat
	failed     chan error // capacity 1
	done       chan struct{}

	mu struct {
		sync.Mutex
		fd     int
		closed bool
	}
}

// acceptor has a reactor accept the connections of l, and closes l; if there is none for it, it returns l itself.
func (rs *reactors) acceptor(s *Server, l net.Listener) net.Listener {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return l
	}
	a, err := rs.accept(s, tcp)
	if err != nil {
		rs.log.Warn("clients are served all the same, but slower: each gets a goroutine until the process starts again", "listen", l.Addr(), "error", err)
		return l
	}
	_ = tcp.Close() // the socket has another descriptor
	return a
}

func (rs *reactors) accept(s *Server, tcp *net.TCPListener) (*acceptor, error) {
	r, err := rs.next()
	if err != nil {
		return nil, err
	}
	fd, err := netpoll.Dup(tcp)
	if err != nil {
		return nil, err
	}
	a := &acceptor{s: s, r: r, addr: tcp.Addr(), failed: make(chan error, 1), done: make(chan struct{})}
	a.mu.fd = fd
	a.at, a.number = r.sit(seat{other: a})
	if err := r.await(fd, a.at, a.number); err != nil {
		r.rise(a.at)
		unix.Close(fd)
		return nil, err
	}
	return a, nil
}

// Addr is [net.Listener]'s.
func (a *acceptor) Addr() net.Addr { return a.addr }

// Close is [net.Listener]'s.
func (a *acceptor) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.closed {
		return net.ErrClosed
	}
	a.mu.closed = true
	close(a.done)
	a.r.rise(a.at)
	return unix.Close(a.mu.fd)
}

// Accept is [net.Listener]'s, but returns no connection.
func (a *acceptor) Accept() (net.Conn, error) {
	if err := a.look(); err != nil {
		return nil, err
	}
	select {
	case err := <-a.failed:
		return nil, err
	case <-a.done:
		return nil, net.ErrClosed
	}
}

// look has the epoll report connections that are there already.
func (a *acceptor) look() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.closed {
		return net.ErrClosed
	}
	return a.r.control(unix.EPOLL_CTL_MOD, a.mu.fd, a.at, a.number)
}

// Report is [netpoll.Watcher]'s.
func (a *acceptor) Report(events uint32) bool { return events&(unix.EPOLLIN|unix.EPOLLERR) != 0 }

// Serve is [netpoll.Watcher]'s.
func (a *acceptor) Serve() {
	for range acceptAtOnce {
		switch k, err := a.accept(); err {
		case nil:
			a.s.stats.connections.Add(1)
			a.s.accept(k)
		case unix.EAGAIN, net.ErrClosed:
			return
		case unix.EINTR, unix.ECONNABORTED:
		default:
			a.fail(os.NewSyscallError("accept4", err))
			return
		}
	}
	if err := a.look(); err != nil {
		a.fail(err)
	}
}

func (a *acceptor) fail(err error) {
	select {
	case a.failed <- err:
	default:
	}
}

// accept takes one connection, which belongs to the next reactor.
func (a *acceptor) accept() (*socket, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.closed {
		return nil, net.ErrClosed
	}
	r, err := a.r.all.next()
	if err != nil {
		return nil, err
	}
	fd, remote, err := unix.Accept4(a.mu.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err != nil {
		return nil, err
	}
	// The listener's would be inherited by those only that connect later.
	for _, o := range &socketOptions {
		_ = unix.SetsockoptInt(fd, o.level, o.name, o.value)
	}
	local, err := unix.Getsockname(fd)
	if err != nil {
		unix.Close(fd)
		return nil, unix.ECONNABORTED
	}
	return &socket{reactor: r, fd: fd, local: tcpAddr(local), remote: tcpAddr(remote), writable: make(chan struct{}, 1)}, nil
}

// reactorsSocket is nc if a reactor serves it, or nil.
func reactorsSocket(nc net.Conn) *socket {
	k, _ := nc.(*socket)
	return k
}

func tcpAddr(at unix.Sockaddr) *net.TCPAddr {
	switch at := at.(type) {
	case *unix.SockaddrInet4:
		return &net.TCPAddr{IP: at.Addr[:], Port: at.Port}
	case *unix.SockaddrInet6:
		a := &net.TCPAddr{IP: at.Addr[:], Port: at.Port}
		if at.ZoneId != 0 {
			a.Zone = strconv.FormatUint(uint64(at.ZoneId), 10)
			if i, err := net.InterfaceByIndex(int(at.ZoneId)); err == nil {
				a.Zone = i.Name
			}
		}
		return a
	}
	return &net.TCPAddr{}
}

// turnAway tells the client of a connection that nobody serves why, and ends it.
func (k *socket) turnAway(text string) {
	_, _ = netpoll.Write(k.fd, []byte(text))
	_ = unix.Close(k.fd)
}
