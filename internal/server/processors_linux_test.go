package server

import (
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/understudy-kv/understudy/internal/netpoll"
)

// thread is a watcher that tells on which thread it is served.
type thread struct {
	fd     int
	served chan int
}

func (w *thread) Report(events uint32) bool { return events&unix.EPOLLIN != 0 }

func (w *thread) Serve() {
	var b [8]byte
	_, _ = unix.Read(w.fd, b[:])
	netpoll.Wake() // the reactor yields
	w.served <- unix.Gettid()
}

// watched has a reactor watch one end of a pair of sockets, and gives the other one.
func watched(t *testing.T) (rs *reactors, w *thread, far int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	rs, w = newReactors(hclog.NewNullLogger()), &thread{fd: pair[0], served: make(chan int, 1)}
	forget, err := rs.Watch(w.fd, w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		forget()
		rs.close()
		unix.Close(pair[0])
		unix.Close(pair[1])
	})
	return rs, w, pair[1]
}

// TestReactorKeepsItsThread: whoever else wants to run, and however often a reactor yields, its thread is the same.
func TestReactorKeepsItsThread(t *testing.T) {
	_, w, far := watched(t)
	var stop atomic.Bool
	defer stop.Store(true)
	for range 2 {
		// They are busy until the test ends.
		go func() {
			for !stop.Load() {
			}
		}()
	}
	first := 0
	for i := range 600 {
		if _, err := unix.Write(far, []byte{1}); err != nil {
			t.Fatal(err)
		}
		tid := <-w.served
		if first == 0 {
			first = tid
		}
		if tid != first {
			t.Fatalf("served %d times by thread %d, and then by %d", i, first, tid)
		}
	}
}

// TestProcessors: a reactor dozes on a processor that is nobody else's, and gives it back.
func TestProcessors(t *testing.T) {
	before, plain := runtime.GOMAXPROCS(0), plainProcessors()
	t.Run("added", func(t *testing.T) {
		rs, _, _ := watched(t)
		n := len(rs.mu.list)
		if want := max(plain/2, 1); n != want {
			t.Errorf("%d reactors for %d processors, want %d", n, plain, want)
		}
		if got := runtime.GOMAXPROCS(0); got != before+n || plainProcessors() != plain || !rs.mu.list[0].dozes {
			t.Errorf("%d processors with %d reactors, %d before; %d without theirs, %d before; dozes: %v", got, n, before, plainProcessors(), plain, rs.mu.list[0].dozes)
		}
	})
	if got := runtime.GOMAXPROCS(0); got != before || plainProcessors() != plain {
		t.Errorf("%d processors at the end, %d before", got, before)
	}
	t.Setenv("GOMAXPROCS", "2")
	t.Run("given", func(t *testing.T) {
		rs, _, _ := watched(t)
		if got := runtime.GOMAXPROCS(0); got != before || rs.mu.list[0].dozes {
			t.Errorf("%d processors, %d before, although they were given; dozes: %v", got, before, rs.mu.list[0].dozes)
		}
	})
	if got := runtime.GOMAXPROCS(0); got != before {
		t.Errorf("%d processors at the end, %d before", got, before)
	}
}
