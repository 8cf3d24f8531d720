package server

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/understudy-kv/understudy/internal/eventually"
	"github.com/understudy-kv/understudy/internal/netpoll"
	"github.com/understudy-kv/understudy/internal/polite"
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
	for i := range 100 {
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

// TestReactorLeavesProcessors: where a reactor keeps a processor there is one more while somebody hurries, and not behind the reactor's end;
// nor does that one count where reactors are made.
func TestReactorLeavesProcessors(t *testing.T) {
	t.Setenv("GOMAXPROCS", "3")
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(3))
	rs, w, far := watched(t)
	if _, err := unix.Write(far, []byte{1}); err != nil {
		t.Fatal(err)
	}
	<-w.served // it runs
	calm := polite.Hurry()
	if n := runtime.GOMAXPROCS(0); n != 4 {
		t.Errorf("%d processors, want 4", n)
	}
	if _, err := rs.next(); err != nil || len(rs.mu.list) != 1 {
		t.Errorf("%d reactors for 3 processors: %v", len(rs.mu.list), err)
	}
	rs.close()
	if n := runtime.GOMAXPROCS(0); n != 3 {
		t.Errorf("%d processors without a reactor, want 3", n)
	}
	calm()
}

// TestReactorDozes: a reactor keeps its processor while it waits only where there is another one, and sees when that changes.
func TestReactorDozes(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	rs, w, far := watched(t)
	for _, n := range []int{1, 2, 1, 3} {
		runtime.GOMAXPROCS(n)
		eventually.True(t, 10*time.Second, fmt.Sprintf("with %d processors a reactor dozes: %v", n, n > 1), func() bool {
			if _, err := unix.Write(far, []byte{1}); err != nil {
				t.Fatal(err)
			}
			<-w.served
			return rs.mu.list[0].dozes.Load() == (n > 1)
		})
	}
}

// leaver is a watcher of a timer that leaves something to a goroutine each time it is served, and looks whether that has run since.
type leaver struct {
	fd          int
	served      chan struct{}
	times, late int // the reactor's
	left, done  atomic.Int32
}

func (w *leaver) Report(events uint32) bool { return events&unix.EPOLLIN != 0 }

func (w *leaver) Serve() {
	var b [8]byte
	_, _ = unix.Read(w.fd, b[:])
	if w.times == leaverTimes {
		return
	}
	if w.done.Load() < w.left.Load() {
		w.late++
	}
	w.left.Add(1)
	go w.done.Add(1) // it ends at once
	netpoll.Wake()
	if w.times++; w.times == leaverTimes {
		close(w.served)
	}
}

const leaverTimes = 61 * 20

// TestReactorLeavesNobodyBehind: where somebody works in the background, whom a reactor has woken runs before the reactor sleeps, although the
// runtime prefers the reactor one time of 61. The others' processors are taken: nobody else would have him run for as long as it sleeps.
func TestReactorLeavesNobodyBehind(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	timer, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(timer)
	rs, w := newReactors(hclog.NewNullLogger()), &leaver{fd: timer, served: make(chan struct{})}
	forget, err := rs.Watch(timer, w)
	if err != nil {
		t.Fatal(err)
	}
	defer rs.close()
	defer forget()
	var stop atomic.Bool
	worked := make(chan struct{})
	// It works as a compaction does until the end of the test, which waits for it.
	go func() {
		defer close(worked)
		var worker polite.Worker
		for !stop.Load() {
			worker.Yield()
		}
	}()
	defer func() { stop.Store(true); <-worked }()
	every := unix.NsecToTimespec(int64(3 * time.Millisecond))
	if err := unix.TimerfdSettime(timer, 0, &unix.ItimerSpec{Interval: every, Value: every}, nil); err != nil {
		t.Fatal(err)
	}
	<-w.served
	// Now and then another processor takes it over, and its thread is held up.
	if w.late > leaverTimes/100 {
		t.Errorf("%d times of %d a reactor slept before who was woken had run", w.late, leaverTimes)
	}
}

// sleeps tells how the reactor's thread waits in the kernel, for events or for the time in milliseconds that its epoll is given, "forever" without
// one; "" if it does not.
func sleeps(t *testing.T, tid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/syscall", tid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(text)) // the number and the arguments of the system call, in hexadecimal; or "running"
	if len(f) < 5 || f[0] != strconv.Itoa(unix.SYS_EPOLL_PWAIT) {
		return ""
	}
	if ms, err := strconv.ParseUint(f[4], 0, 64); err == nil && int32(ms) >= 0 {
		return fmt.Sprint(int32(ms), " ms")
	}
	return "forever"
}

// TestReactorKeepsItsProcessor: a reactor without anything to do keeps its processor as long as somebody works in the background, whether it slept
// when that began or has yielded to others since, and then sleeps until there is something.
func TestReactorKeepsItsProcessor(t *testing.T) {
	if _, err := os.ReadFile("/proc/thread-self/syscall"); err != nil {
		t.Skip("the kernel does not tell what a thread waits for: ", err)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	rs, w, far := watched(t)
	serve := func() (tid int) {
		if _, err := unix.Write(far, []byte{1}); err != nil {
			t.Fatal(err)
		}
		return <-w.served
	}
	tid := serve()
	if !rs.mu.list[0].dozes.Load() {
		t.Fatal("a reactor does not keep one of two processors")
	}
	asleep := func(want string) {
		t.Helper()
		how := ""
		defer func() {
			if t.Failed() {
				t.Logf("seen last: %q", how)
			}
		}()
		eventually.True(t, 10*time.Second, "the reactor sleeps "+want, func() bool { how = sleeps(t, tid); return how == want })
	}
	asleep("forever")
	var stop atomic.Bool
	defer stop.Store(true)
	worked := make(chan int, 1)
	// It works as a compaction does until it is told to stop; the test waits for it.
	go func() {
		var worker polite.Worker
		turns := 0
		for !stop.Load() {
			if worker.Yield() {
				turns++
			}
		}
		worked <- turns
	}()
	for range 5 {
		asleep("10 ms")
		looks := 0
		eventually.True(t, 10*time.Second, "a hundred looks at the reactor", func() bool {
			if how := sleeps(t, tid); how == "forever" {
				t.Fatal("the reactor gives its processor up while somebody works")
			}
			looks++
			return looks == 100
		})
		serve() // and the reactor yields, since somebody was woken
	}
	stop.Store(true)
	if n := <-worked; n == 0 {
		t.Error("the worker has never yielded")
	}
	asleep("forever")
}
