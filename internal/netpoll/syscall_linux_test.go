package netpoll

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDozeObeys: a collection of garbage, which stops every goroutine, does not wait for the end of a doze.
func TestDozeObeys(t *testing.T) {
	if runtime.GOMAXPROCS(0) < 2 {
		t.Skip("one processor, which the doze would keep")
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(epoll)
	const ms = 60_000
	begun := make(chan struct{})
	took := make(chan time.Duration)
	// It ends with the collection, or after a minute.
	go func() {
		close(begun)
		at := time.Now()
		Doze(epoll, make([]unix.EpollEvent, 1), ms)
		took <- time.Since(at)
	}()
	<-begun
	runtime.GC()
	for {
		select {
		case d := <-took:
			if d >= ms*time.Millisecond {
				t.Errorf("the doze lasted for %v, as if nobody had wanted it to end", d)
			}
			return
		default:
			runtime.GC() // the last one may have come before it dozed
		}
	}
}

// TestDozeWakes: what the epoll reports ends a doze, and what it has to report already is there at once.
func TestDozeWakes(t *testing.T) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(epoll)
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, pipe[0], &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: 7}); err != nil {
		t.Fatal(err)
	}
	events := make([]unix.EpollEvent, 4)
	if n := Doze(epoll, events, 1); n != 0 {
		t.Fatalf("%d events of an empty pipe", n)
	}
	for range 2 {
		if _, err := unix.Write(pipe[1], []byte{1}); err != nil {
			t.Fatal(err)
		}
		n := 0
		for n == 0 { // a signal of the runtime ends a doze with nothing
			n = Doze(epoll, events, 60_000)
		}
		if n != 1 || events[0].Fd != 7 {
			t.Fatalf("%d events, the first %+v", n, events[0])
		}
		if n := Poll(epoll, events); n != 0 {
			t.Fatalf("%d events without a new one", n)
		}
	}
}
