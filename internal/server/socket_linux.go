package server

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/understudy-kv/understudy/internal/netpoll"
)

// The states of a socket.
const (
	idle  = iota // nobody owns it, and there is nothing to read
	busy         // somebody owns it
	again        // the same, and it must be read from before it is idle
)

// socket is the transport of a connection that a reactor serves. Read and Write are the owner's; Read does not wait: it
// returns unix.EAGAIN. The rest may be called by any goroutine.
type socket struct {
	reactor       *reactor
	fd            int
	seat          int32
	state         atomic.Int32
	writable      chan struct{} // capacity 1: try again to write
	full          bool          // the owner's: the last read took all there was room for
	ended         atomic.Bool   // the peer sends nothing behind what can be read
	local, remote net.Addr

	mu struct {
		sync.Mutex
		closed bool
	}
}

func (k *socket) Read(b []byte) (int, error) {
	for {
		n, err := netpoll.Read(k.fd, b)
		k.full = n == len(b)
		switch {
		case n > 0:
			return n, nil
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			k.ended.Store(false) // what was reported was not the end; if it is reported meanwhile, the state is again
			return 0, err
		case err != nil:
			return 0, err
		default:
			return 0, io.EOF
		}
	}
}

// more reports whether there may be something to read that the epoll does not report again.
func (k *socket) more() bool { return k.full || k.ended.Load() }

// Write writes all of b, however long the client takes.
func (k *socket) Write(b []byte) (sum int, err error) {
	for {
		n, err := netpoll.Write(k.fd, b[sum:])
		sum += max(n, 0)
		switch {
		case sum == len(b):
			return sum, nil
		case err == nil, err == unix.EINTR:
		case err == unix.EAGAIN:
			<-k.writable
		default:
			return sum, err
		}
	}
}

// Close shuts the connection down. The owner hears of it, and closes the socket.
func (k *socket) Close() error { return k.shutdown(unix.SHUT_RDWR) }

func (k *socket) shutdown(how int) error {
	return k.control(func(fd int) error { return unix.Shutdown(fd, how) })
}

// control calls f with the socket, unless it is closed.
func (k *socket) control(f func(fd int) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mu.closed {
		return net.ErrClosed
	}
	return f(k.fd)
}

func (k *socket) LocalAddr() net.Addr  { return k.local }
func (k *socket) RemoteAddr() net.Addr { return k.remote }

// SetReadDeadline ends the reading at once if t has passed. Otherwise it has the reactor look at the time limit.
func (k *socket) SetReadDeadline(t time.Time) error {
	if !t.IsZero() && !t.After(time.Now()) {
		return k.shutdown(unix.SHUT_RD)
	}
	k.reactor.poke()
	return nil
}

// SetWriteDeadline and SetDeadline are not for these sockets.
func (k *socket) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }
func (k *socket) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
