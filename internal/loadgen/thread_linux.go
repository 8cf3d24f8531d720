package loadgen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A thread is one epoll and its connections.
type thread struct {
	*Config
	source  *source
	epoll   int
	conns   []*conn
	events  []unix.EpollEvent
	buf     []byte // shared by all connections: a reply is counted where it was read
	began   time.Time
	left    int64 // requests that may still be begun; negative without a limit
	over    bool  // no request is begun any more
	waiting int64 // requests that are not answered
	result  Result
	pace    pace
}

// conn is a connection and what is under way on it.
type conn struct {
	fd      int32
	out     []byte // built and not yet written
	held    bool   // out could not be written whole: epoll tells when to go on
	waiting int    // requests that are not answered
	sent    time.Duration
	due     dues // with a rate: when each of them was due
	replies counter
}

func newThread(c *Config, i int) (*thread, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("loadgen: epoll: %w", err)
	}
	n := int(share(int64(c.Conns), i, c.Threads))
	t := &thread{Config: c, source: newSource(c, i), epoll: epoll, events: make([]unix.EpollEvent, n), buf: make([]byte, 256<<10), left: -1}
	if c.Requests > 0 {
		t.left = share(c.Requests, i, c.Threads)
	}
	for range n {
		fd, err := dial(c.Addr)
		if err == nil {
			err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(len(t.conns))})
		}
		if err != nil {
			t.close()
			return nil, fmt.Errorf("loadgen: %s: %w", c.Addr, err)
		}
		t.conns = append(t.conns, &conn{fd: int32(fd)})
	}
	return t, nil
}

// dial connects, and gives a socket that never blocks.
func dial(addr string) (fd int, err error) {
	a, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return 0, err
	}
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, err
	}
	to := &unix.SockaddrInet4{Port: a.Port}
	copy(to.Addr[:], a.IP.To4())
	err = errors.Join(unix.Connect(fd, to), unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1), unix.SetNonblock(fd, true))
	if err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

func (t *thread) close() {
	for _, c := range t.conns {
		unix.Close(int(c.fd))
	}
	unix.Close(t.epoll)
}

// run is the thread's life.
func (t *thread) run(ctx context.Context, began time.Time) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	t.began = began
	cpu := threadCPU()
	defer func() { t.result.CPU = threadCPU() - cpu }()
	if t.Rate > 0 {
		// Without this the kernel wakes a sleeper up to 50 µs late.
		if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("loadgen: timer slack: %w", err)
		}
		t.pace = newPace(t.Config)
	} else {
		for _, c := range t.conns {
			if err := t.begin(c); err != nil {
				return err
			}
		}
	}
	heard := time.Duration(0)
	for {
		now := time.Since(began)
		if t.Rate == 0 && t.Duration > 0 && now >= t.Duration { // with a rate, what was due before the end is still sent
			t.over = true
		}
		select {
		case <-t.Stop:
			t.over = true
		default:
		}
		wait := 50 * time.Millisecond
		if t.Rate > 0 {
			next, err := t.emit(now)
			if err != nil {
				return err
			}
			wait = min(wait, max(next, 0))
		}
		if t.over && t.waiting == 0 || ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := t.poll(wait)
		if err != nil {
			return err
		}
		if n > 0 || t.waiting == 0 {
			heard = now
		} else if now-heard > t.Patience {
			return fmt.Errorf("loadgen: %s: %d requests were not answered for %s", t.Addr, t.waiting, t.Patience)
		}
		for _, e := range t.events[:n] {
			if err := t.serve(t.conns[e.Fd], e.Events); err != nil {
				return fmt.Errorf("loadgen: %s: %w", t.Addr, err)
			}
		}
	}
}

// poll waits for sockets, to the microsecond.
func (t *thread) poll(wait time.Duration) (int, error) {
	ts := unix.NsecToTimespec(int64(wait))
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(t.epoll), uintptr(unsafe.Pointer(&t.events[0])), uintptr(len(t.events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
	if errno != 0 && errno != unix.EINTR {
		return 0, fmt.Errorf("loadgen: epoll: %w", errno)
	} else if errno != 0 {
		return 0, nil
	}
	return int(n), nil
}

// serve takes a connection's replies and, once all of a pipeline are there, sends the next.
func (t *thread) serve(c *conn, events uint32) error {
	if events&unix.EPOLLOUT != 0 {
		if err := t.write(c); err != nil {
			return err
		}
	}
	if events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) == 0 {
		return nil
	}
	n, err := unix.Read(int(c.fd), t.buf)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return nil
	case err != nil:
		return err
	case n == 0:
		return fmt.Errorf("it closed a connection on which %d replies were due: %w", c.waiting, io.ErrUnexpectedEOF)
	}
	misses := c.replies.misses
	replies, err := c.replies.count(t.buf[:n])
	if err != nil {
		return err
	}
	if replies > c.waiting {
		return fmt.Errorf("%d replies to %d requests", replies, c.waiting)
	}
	c.waiting -= replies
	t.waiting -= int64(replies)
	t.result.Requests += int64(replies)
	t.result.Misses += c.replies.misses - misses
	if t.Rate > 0 {
		now := time.Since(t.began)
		for range replies {
			t.result.Latency.Record(now - c.due.pop())
		}
		return nil
	}
	if c.waiting > 0 {
		return nil
	}
	if t.Latency && replies > 0 {
		t.result.Latency.Record(time.Since(t.began) - c.sent)
	}
	return t.begin(c)
}

// begin sends a connection's next pipeline, if there is one.
func (t *thread) begin(c *conn) error {
	if t.over {
		return nil
	}
	for range t.Pipeline {
		if !t.add(c) {
			break
		}
	}
	if c.waiting == 0 {
		return nil
	}
	if t.Latency {
		c.sent = time.Since(t.began)
	}
	return t.write(c)
}

// add puts one request into a connection's buffer. It returns false when there is none to begin any more.
func (t *thread) add(c *conn) bool {
	if t.left == 0 {
		t.over = true
		return false
	}
	out, ok := t.source.append(c.out)
	if !ok {
		t.over = true
		return false
	}
	c.out = out
	c.waiting++
	t.waiting++
	if t.left > 0 {
		t.left--
	}
	return true
}

// write sends what is built, and asks epoll to tell when the rest may go.
func (t *thread) write(c *conn) error {
	for len(c.out) > 0 {
		n, err := unix.Write(int(c.fd), c.out)
		if err == unix.EAGAIN {
			return t.hold(c, true)
		}
		if err != nil && err != unix.EINTR {
			return err
		}
		if n = max(n, 0); n == len(c.out) {
			c.out = c.out[:0]
		} else {
			c.out = c.out[:copy(c.out, c.out[n:])]
		}
	}
	return t.hold(c, false)
}

func (t *thread) hold(c *conn, held bool) error {
	if c.held == held {
		return nil
	}
	c.held = held
	e := unix.EpollEvent{Events: unix.EPOLLIN}
	if held {
		e.Events |= unix.EPOLLOUT
	}
	for i, o := range t.conns {
		if o == c {
			e.Fd = int32(i)
		}
	}
	return unix.EpollCtl(t.epoll, unix.EPOLL_CTL_MOD, int(c.fd), &e)
}

// threadCPU is what the calling thread has used.
func threadCPU() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
