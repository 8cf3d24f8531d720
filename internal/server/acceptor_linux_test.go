package server

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/understudy-kv/understudy/internal/eventually"
	"github.com/understudy-kv/understudy/internal/keyspace"
)

// pinged sends PING and wants its reply.
func pinged(t *testing.T, nc net.Conn) {
	t.Helper()
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := nc.Write([]byte("PING\r\n")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len("+PONG\r\n"))
	if _, err := io.ReadFull(nc, got); err != nil || string(got) != "+PONG\r\n" {
		t.Fatalf("%v: PING got %q: %v", nc.LocalAddr(), got, err)
	}
}

func dialed(t *testing.T, addr string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return nc
}

// TestReactorAccepts: a reactor accepts clients, whose connections have the addresses and the options that they would have otherwise.
func TestReactorAccepts(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		l, err := net.Listen("tcp", host+":0")
		if host == "[::1]" && (errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT)) {
			t.Logf("this machine has no address %s: %v", host, err)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		r := startOn(t, l, 1, nil)
		r.mu.Lock()
		for l := range r.mu.listeners {
			if _, ok := l.(*acceptor); !ok {
				t.Errorf("%s: clients are accepted by a %T", host, l)
			}
		}
		r.mu.Unlock()
		nc := dialed(t, r.addr)
		pinged(t, nc)
		r.clients.each(func(c *conn) {
			if c.nc.RemoteAddr().String() != nc.LocalAddr().String() || c.nc.LocalAddr().String() != nc.RemoteAddr().String() {
				t.Errorf("%v to %v is, for the server, %v to %v", nc.LocalAddr(), nc.RemoteAddr(), c.nc.RemoteAddr(), c.nc.LocalAddr())
			}
			if c.socket == nil {
				t.Fatal("a connection has a goroutine of its own")
			}
			for _, o := range []struct {
				what        string
				level, name int
				want        int
			}{
				{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
				{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
				{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 300},
				{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15},
				{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 9},
			} {
				if got, err := unix.GetsockoptInt(c.socket.fd, o.level, o.name); got != o.want || err != nil {
					t.Errorf("%s: %s is %d, want %d: %v", host, o.what, got, o.want, err)
				}
			}
			for _, flag := range []struct{ name, get, want int }{{unix.O_NONBLOCK, unix.F_GETFL, unix.O_NONBLOCK}, {unix.FD_CLOEXEC, unix.F_GETFD, unix.FD_CLOEXEC}} {
				if got, err := unix.FcntlInt(uintptr(c.socket.fd), flag.get, 0); got&flag.name != flag.want || err != nil {
					t.Errorf("%s: a connection has the flags %#x, want %#x among them: %v", host, got, flag.want, err)
				}
			}
		})
		if n := r.stats.connections.Load(); n != 1 {
			t.Errorf("%d connections are counted, want 1", n)
		}
	}
}

// TestManyConnectAtOnce: more clients than are accepted at once have connected before anybody accepts.
func TestManyConnectAtOnce(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var clients []net.Conn
	for range 5*acceptAtOnce + 1 {
		clients = append(clients, dialed(t, l.Addr().String()))
	}
	startOn(t, l, 1, nil)
	for _, nc := range clients {
		pinged(t, nc)
	}
}

// TestAcceptWithoutDescriptors: where no descriptors are left connections wait until there are, and the log says so.
func TestAcceptWithoutDescriptors(t *testing.T) {
	log := &lines{}
	r := start(t, 1, func(o *ServeOptions) { o.Logger = hclog.New(&hclog.LoggerOptions{Output: log}) })
	pinged(t, dialed(t, r.addr))
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	again := func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
			t.Fatal(err)
		}
	}
	defer again()
	free, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(free)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(free) + 1, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	nc := dialed(t, r.addr) // takes the last one
	eventually.True(t, 10*time.Second, "the log tells of it", func() bool {
		return strings.Contains(log.String(), `ulimit -n), or lower maxclients: error="accept4: too many open files" retry_in=100ms`)
	})
	again()
	pinged(t, nc)
	pinged(t, dialed(t, r.addr))
}

// TestHopeless: which errors end the accepting.
func TestHopeless(t *testing.T) {
	for err, want := range map[error]bool{
		net.ErrClosed: true,
		&net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EINVAL)}: true,
		fmt.Errorf("accept4: %w", unix.EBADF):                                          true,
		fmt.Errorf("accept4: %w", unix.EMFILE):                                         false,
		fmt.Errorf("accept4: %w", unix.EPERM):                                          false,
		fmt.Errorf("accept4: %w", unix.ENETDOWN):                                       false,
		errors.Join(unix.ENOBUFS):                                                      false,
	} {
		if got := hopeless(err); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}

// TestAcceptorCloses: an acceptor that is closed ends Accept, closes its descriptor once, and is served without harm.
func TestAcceptorCloses(t *testing.T) {
	r := start(t, 1, nil)
	pinged(t, dialed(t, r.addr))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a, ok := r.reactors.acceptor(r.Server, l).(*acceptor)
	if !ok {
		t.Fatal("no reactor accepts")
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener was still open: %v", err)
	}
	if a.Addr().String() != l.Addr().String() {
		t.Errorf("it is at %v, want %v", a.Addr(), l.Addr())
	}
	pinged(t, dialed(t, a.Addr().String()))
	ended := make(chan error, 1)
	go func() { // ended by Close
		_, err := a.Accept()
		ended <- err
	}()
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept ended with %v", err)
	}
	if err := a.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed twice: %v", err)
	}
	if _, err := a.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept behind Close: %v", err)
	}
	a.Serve()
	if nc, err := net.Dial("tcp", a.Addr().String()); err == nil {
		_ = nc.Close()
		t.Error("somebody still listens there")
	}
}

// TestServeBehindShutdown: a server that was stopped before it began to serve closes the listener and says nothing.
func TestServeBehindShutdown(t *testing.T) {
	s := NewServer(ServeOptions{Keyspace: keyspace.New(keyspace.Options{}), Backend: newFakeBackend()})
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); err != nil {
		t.Error(err)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener was still open: %v", err)
	}
}
