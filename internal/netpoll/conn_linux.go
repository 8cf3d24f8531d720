package netpoll

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The states of a Conn's reading.
const (
	owned       = iota // the reader's
	ownedAgain         // the same, and something was reported since it last began to read
	lent               // the poller's, and there is nothing to read
	due                // the poller's, which will be at it when it has served others
	served             // the poller's, and it is at it
	servedAgain        // the same, and something was reported since it began
)

// lookAgain is how long a Read or Write waits at most for the poller's word before it looks for itself: what else the poller does may take
// long where the disk does not keep up.
const lookAgain = 100 * time.Millisecond

// Conn is a TCP connection that a [Poller] waits for. One goroutine reads and one writes at a time; the other methods are safe
// for concurrent use.
type Conn struct {
	fd            int
	forget        func() // by the poller
	local, remote net.Addr

	state    atomic.Int32
	serve    func() bool   // while it is not owned
	recalled atomic.Bool   // it is to be owned again
	back     chan struct{} // capacity 1: it is owned again
	waiting  *time.Timer   // of Lend, its caller's
	full     bool          // the last read took all there was room for; whoever reads owns it
	ended    atomic.Bool   // the peer may have closed its side

	reading, writing side

	using  sync.RWMutex // held for reading during system calls with fd
	closed bool         // guarded by using
	done   chan struct{}
}

// side is what one direction waits with.
type side struct {
	ready    chan struct{} // capacity 1: try again
	deadline atomic.Int64  // in nanoseconds since 1970, 0 for none
	timer    *time.Timer   // of whoever reads, or writes
	fires    time.Time     // when the timer does, zero if it has
}

// Adopt has the poller wait for conn instead of the runtime, if it is a TCP connection, and closes conn; otherwise, or where that fails, it
// returns conn itself. A nil Poller adopts nothing.
func Adopt(p Poller, conn net.Conn) net.Conn {
	tcp, ok := conn.(*net.TCPConn)
	if !ok || p == nil {
		return conn
	}
	fd, err := Dup(tcp)
	if err != nil {
		return conn
	}
	c := &Conn{
		fd: fd, local: tcp.LocalAddr(), remote: tcp.RemoteAddr(),
		back: make(chan struct{}, 1), done: make(chan struct{}),
	}
	c.state.Store(ownedAgain)
	c.reading.ready, c.writing.ready = make(chan struct{}, 1), make(chan struct{}, 1)
	if c.forget, err = p.Watch(fd, c); err != nil {
		unix.Close(fd)
		return conn
	}
	_ = tcp.Close() // the socket has another descriptor
	return c
}

// Dup is a descriptor of the same socket that the runtime does not poll.
func Dup(socket syscall.Conn) (fd int, err error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0, err
	}
	if failed := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); failed != nil {
		return 0, failed
	}
	return fd, err
}

// Report is [Watcher]'s.
func (c *Conn) Report(events uint32) bool {
	const hungUp = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	if events&(unix.EPOLLOUT|hungUp) != 0 {
		signal(c.writing.ready)
	}
	if events&hungUp != 0 {
		c.ended.Store(true)
	}
	for events&(unix.EPOLLIN|hungUp) != 0 {
		switch at := c.state.Load(); at {
		case lent:
			if c.state.CompareAndSwap(lent, due) {
				return true
			}
		case due:
			return false // what Serve reads is behind this
		case owned, served:
			if c.state.CompareAndSwap(at, at+1) {
				signal(c.reading.ready)
				Wake()
				return false
			}
		default:
			signal(c.reading.ready)
			Wake()
			return false
		}
	}
	return false
}

// Serve is [Watcher]'s.
func (c *Conn) Serve() {
	if !c.state.CompareAndSwap(due, served) {
		return // the reader has it back
	}
	for c.serve() && !c.recalled.Load() {
		if c.state.CompareAndSwap(served, lent) {
			if c.recalled.Load() { // and whoever recalled it may have come before
				c.recall()
			}
			return
		}
		c.state.Store(served)
	}
	c.state.Store(ownedAgain)
	signal(c.back)
	Wake()
}

// Lend is [Lender]'s.
func (c *Conn) Lend(serve func() bool, limit time.Duration) {
	c.serve = serve
	c.recalled.Store(false)
	if c.isClosed() || !c.state.CompareAndSwap(owned, lent) {
		return
	}
	if c.isClosed() { // Close may have come between the two
		c.recall()
	}
	if c.waiting == nil {
		c.waiting = time.NewTimer(limit)
	} else {
		c.waiting.Reset(limit)
	}
	defer c.waiting.Stop()
	for {
		select {
		case <-c.back:
			return
		case <-c.waiting.C:
			c.recalled.Store(true)
			c.recall()
		}
	}
}

// recall makes the reading the reader's if it is lent and nobody is at it. Otherwise the poller does once it has served.
func (c *Conn) recall() {
	// Report may make the one the other in between. If Serve does, and then makes it lent again, it looks whether it was recalled.
	if c.state.CompareAndSwap(lent, ownedAgain) || c.state.CompareAndSwap(due, ownedAgain) {
		signal(c.back)
	}
}

func (c *Conn) isClosed() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// TryRead is [Lender]'s.
func (c *Conn) TryRead(b []byte) (int, error) {
	// What is reported from here on is behind what is read now.
	if at := c.state.Load(); at == ownedAgain || at == servedAgain {
		c.state.CompareAndSwap(at, at-1)
	}
	c.using.RLock()
	defer c.using.RUnlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	for {
		n, err := Read(c.fd, b)
		c.full = n == len(b)
		switch {
		case n > 0 || len(b) == 0:
			return max(n, 0), nil
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			c.ended.Store(false) // what was reported was not the end; if it is reported meanwhile, the state is again
			return 0, ErrWouldBlock
		case err != nil:
			return 0, c.failed("read", err)
		default:
			return 0, io.EOF
		}
	}
}

// More is [Lender]'s.
func (c *Conn) More() bool { return c.full || c.ended.Load() }

// TryWrite is [Lender]'s.
func (c *Conn) TryWrite(b []byte) (int, error) {
	c.using.RLock()
	defer c.using.RUnlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	for {
		n, err := Write(c.fd, b)
		switch {
		case err == nil:
			return n, nil
		case err == unix.EAGAIN:
			return 0, nil
		case err != unix.EINTR:
			return 0, c.failed("write", err)
		}
	}
}

func (c *Conn) failed(what string, err error) error {
	return &net.OpError{Op: what, Net: "tcp", Source: c.local, Addr: c.remote, Err: os.NewSyscallError(what, err)}
}

// Read reads what there is, and waits for something until the deadline.
func (c *Conn) Read(b []byte) (int, error) {
	for {
		if c.reading.expired() {
			return 0, os.ErrDeadlineExceeded
		}
		if n, err := c.TryRead(b); err != ErrWouldBlock {
			return n, err
		}
		c.reading.wait(c.done)
	}
}

// Write writes all of b. At the deadline it returns how much of it was written.
func (c *Conn) Write(b []byte) (sum int, err error) {
	for {
		if c.writing.expired() {
			return sum, os.ErrDeadlineExceeded
		}
		n, err := c.TryWrite(b[sum:])
		sum += n
		if err != nil || sum == len(b) {
			return sum, err
		}
		c.writing.wait(c.done)
	}
}

func (s *side) expired() bool {
	at := s.deadline.Load()
	return at != 0 && time.Now().UnixNano() >= at
}

// wait returns when there may be something to do, at the deadline, when that is changed, when done is closed, and at some time within
// lookAgain. Most waits are short, and a timer that is set makes the runtime wake a thread: so it goes on when a wait is over, and serves the
// next ones.
func (s *side) wait(done <-chan struct{}) {
	now := time.Now()
	until := now.Add(lookAgain)
	if at := s.deadline.Load(); at != 0 && at < until.UnixNano() {
		until = time.Unix(0, at)
	}
	switch {
	case s.timer == nil:
		s.timer, s.fires = time.NewTimer(until.Sub(now)), until
	case s.fires.IsZero() || until.Before(s.fires):
		s.timer.Reset(until.Sub(now))
		s.fires = until
	}
	select {
	case <-s.ready:
	case <-s.timer.C:
		s.fires = time.Time{}
	case <-done:
	}
}

func (s *side) set(t time.Time) {
	at := int64(0)
	if !t.IsZero() {
		at = t.UnixNano()
	}
	if s.deadline.Swap(at) != at {
		signal(s.ready) // whoever waits looks at it
	}
}

// signal leaves a token in a channel of capacity 1.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// SetReadDeadline is for Read, which looks at it at once.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.reading.set(t)
	return c.open()
}

// SetWriteDeadline is for Write, which looks at it at once.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.writing.set(t)
	return c.open()
}

// SetDeadline is both.
func (c *Conn) SetDeadline(t time.Time) error {
	c.reading.set(t)
	c.writing.set(t)
	return c.open()
}

func (c *Conn) open() error {
	if c.isClosed() {
		return net.ErrClosed
	}
	return nil
}

// SetLinger is (*net.TCPConn).SetLinger.
func (c *Conn) SetLinger(sec int) error {
	l := unix.Linger{Onoff: 1, Linger: int32(sec)}
	if sec < 0 {
		l = unix.Linger{}
	}
	c.using.RLock()
	defer c.using.RUnlock()
	if c.closed {
		return net.ErrClosed
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &l))
}

// Close ends reading and writing, whoever is at it, with net.ErrClosed.
func (c *Conn) Close() error {
	c.using.Lock()
	if c.closed {
		c.using.Unlock()
		return net.ErrClosed
	}
	c.closed = true
	close(c.done)
	c.using.Unlock()
	c.forget()
	err := unix.Close(c.fd)
	c.recalled.Store(true)
	c.recall()
	return os.NewSyscallError("close", err)
}

// LocalAddr is this end's address.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the other end's.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }
