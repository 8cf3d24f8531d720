package server

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/understudy-kv/understudy/internal/netpoll"
	"github.com/understudy-kv/understudy/internal/polite"
)

// reactors are what a process's connections are waited for by: clients' and, as a [netpoll.Poller], those of replication.
// They begin with the first listener or connection.
type reactors struct {
	log    hclog.Logger
	server atomic.Pointer[Server] // whose clients they serve, once there is one
	count  atomic.Int32           // of them

	mu struct {
		sync.Mutex
		list   []*reactor
		n      int
		closed bool
	}
}

func newReactors(log hclog.Logger) *reactors { return &reactors{log: log} }

// timeout is how long a client may send nothing, or 0.
func (rs *reactors) timeout() time.Duration {
	if s := rs.server.Load(); s != nil {
		return time.Duration(s.timeout.Load())
	}
	return 0
}

// next is the reactor of the next connection.
func (rs *reactors) next() (*reactor, error) {
	m := &rs.mu
	m.Lock()
	defer m.Unlock()
	if m.closed {
		return nil, net.ErrClosed
	}
	// The other half of the cores is for feeders, appliers and what goes on in the background.
	for len(m.list) == 0 || len(m.list) < polite.Processors()/2 {
		r, err := newReactor(rs)
		if err != nil {
			if len(m.list) == 0 {
				return nil, err
			}
			rs.log.Warn("all clients are served, but by fewer threads than there could be; it is tried again with the next one", "threads", len(m.list), "error", err)
			break
		}
		m.list = append(m.list, r)
		rs.count.Store(int32(len(m.list)))
	}
	m.n++
	return m.list[m.n%len(m.list)], nil
}

// Watch is [netpoll.Poller]'s.
func (rs *reactors) Watch(fd int, w netpoll.Watcher) (forget func(), err error) {
	r, err := rs.next()
	if err != nil {
		return nil, err
	}
	at, number := r.sit(seat{other: w})
	if err := r.await(fd, at, number); err != nil {
		r.rise(at)
		return nil, err
	}
	return func() { r.rise(at) }, nil
}

func (rs *reactors) poller() netpoll.Poller { return rs }

// close ends the reactors. All connections have ended.
func (rs *reactors) close() {
	rs.mu.Lock()
	rs.mu.closed = true
	list := rs.mu.list
	rs.mu.Unlock()
	for _, r := range list {
		r.mu.Lock()
		r.mu.closing = true
		r.mu.Unlock()
		r.poke()
		<-r.done
		r.mu.Lock()
		r.mu.closed = true
		unix.Close(r.epoll)
		unix.Close(r.wake)
		r.mu.Unlock()
	}
}

func newReactor(rs *reactors) (*reactor, error) {
	r := &reactor{all: rs, done: make(chan struct{}), events: make([]unix.EpollEvent, maxReady)}
	var err error
	if r.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if r.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
		err = unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, r.wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: -1})
	}
	if err != nil {
		unix.Close(r.epoll)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	// The reactor's goroutine owns the epoll, and each connection that has sent something until it is answered or has a
	// goroutine of its own. It ends with close, behind the last connection; close waits for it.
	go r.run()
	return r, nil
}

// poke has the reactor look at what is no socket.
func (r *reactor) poke() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.mu.closed {
		_, _ = unix.Write(r.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// attach begins to serve the connection.
func (c *conn) attach() {
	k := c.socket
	at, number := k.reactor.sit(seat{c: c})
	if err := k.reactor.await(k.fd, at, number); err != nil {
		k.reactor.all.log.Warn("a connection cannot be served", "error", err)
		k.reactor.end(c)
	}
}

// sit gives a connection a place.
func (r *reactor) sit(s seat) (at, number int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.mu.free); n > 0 {
		at, r.mu.free = r.mu.free[n-1], r.mu.free[:n-1]
	} else {
		at = int32(len(r.mu.seats))
		r.mu.seats = append(r.mu.seats, seat{})
	}
	s.number = r.mu.seats[at].number
	r.mu.seats[at] = s
	if s.c != nil {
		s.c.socket.seat = at
	}
	return at, s.number
}

// rise frees the place.
func (r *reactor) rise(at int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.seats[at] = seat{number: r.mu.seats[at].number + 1}
	r.mu.free = append(r.mu.free, at)
}

// await has the epoll report what happens to the descriptor.
func (r *reactor) await(fd int, at, number int32) error {
	return r.control(unix.EPOLL_CTL_ADD, fd, at, number)
}

func (r *reactor) control(op, fd int, at, number int32) error {
	return unix.EpollCtl(r.epoll, op, fd, &unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: at, Pad: number,
	})
}

// end ends the connection. Its owner calls it, on any goroutine.
func (r *reactor) end(c *conn) {
	k := c.socket
	c.end()
	r.rise(k.seat)
	k.mu.Lock()
	k.mu.closed = true
	_ = unix.Close(k.fd)
	k.mu.Unlock()
	c.s.done.Done()
}
