package server

import (
	"fmt"
	"net"
	"runtime"

	"golang.org/x/sys/unix"
)

// reactors are a server's reactors, which begin with its first connection.
type reactors struct {
	s    *Server
	list []*reactor // guarded by Server.mu
	n    int
}

// adopt makes c a connection of a reactor, and reports whether it did. The caller holds Server.mu.
func (rs *reactors) adopt(c *conn) bool {
	tcp, ok := c.nc.(*net.TCPConn)
	if !ok {
		return false
	}
	if rs.list == nil && !rs.begin() {
		return false
	}
	fd, err := dup(tcp)
	if err != nil {
		return false
	}
	k := &socket{fd: fd, local: tcp.LocalAddr(), remote: tcp.RemoteAddr(), writable: make(chan struct{}, 1)}
	rs.n++
	k.reactor = rs.list[rs.n%len(rs.list)]
	_ = tcp.Close()
	c.nc, c.socket = k, k
	return true
}

func (rs *reactors) begin() bool {
	// The other half of the cores is for feeders, appliers and what goes on in the background.
	for range max(1, runtime.GOMAXPROCS(0)/2) {
		r, err := newReactor(rs.s)
		if err != nil {
			rs.s.log.Warn("connections get a goroutine each", "error", err)
			return len(rs.list) > 0
		}
		rs.list = append(rs.list, r)
	}
	return len(rs.list) > 0
}

// close ends the reactors. All connections have ended, and no further one comes.
func (rs *reactors) close() {
	for _, r := range rs.list {
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

func newReactor(s *Server) (*reactor, error) {
	r := &reactor{s: s, done: make(chan struct{}), events: make([]unix.EpollEvent, maxReady)}
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
	r := k.reactor
	r.mu.Lock()
	if n := len(r.mu.free); n > 0 {
		k.seat, r.mu.free = r.mu.free[n-1], r.mu.free[:n-1]
	} else {
		k.seat = int32(len(r.mu.seats))
		r.mu.seats = append(r.mu.seats, seat{})
	}
	at := &r.mu.seats[k.seat]
	at.c = c
	number := at.number
	r.mu.Unlock()
	err := unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, k.fd, &unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: k.seat, Pad: number,
	})
	if err != nil {
		r.s.log.Warn("a connection cannot be served", "error", err)
		r.end(c)
	}
}

// end ends the connection. Its owner calls it, on any goroutine.
func (r *reactor) end(c *conn) {
	k := c.socket
	c.end()
	r.mu.Lock()
	r.mu.seats[k.seat].c = nil
	r.mu.seats[k.seat].number++
	r.mu.free = append(r.mu.free, k.seat)
	r.mu.Unlock()
	k.mu.Lock()
	k.mu.closed = true
	_ = unix.Close(k.fd)
	k.mu.Unlock()
	r.s.done.Done()
}
