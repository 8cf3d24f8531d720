package netpoll

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// poller is an epoll with a goroutine, which ends with the test.
type poller struct {
	epoll int
	mu    sync.Mutex
	seats map[int32]Watcher
	next  int32
}

func newPoller(t *testing.T) *poller {
	t.Helper()
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	p := &poller{epoll: epoll, seats: map[int32]Watcher{}}
	var stop atomic.Bool
	ended := make(chan struct{})
	// It owns the epoll, and ends at the test's end, which waits for it.
	go func() {
		defer close(ended)
		events := make([]unix.EpollEvent, 16)
		for !stop.Load() {
			n, _ := unix.EpollWait(epoll, events, 10)
			var served []Watcher
			p.mu.Lock()
			for _, e := range events[:max(n, 0)] {
				if w := p.seats[e.Fd]; w != nil && w.Report(e.Events) {
					served = append(served, w)
				}
			}
			p.mu.Unlock()
			for _, w := range served {
				w.Serve()
			}
		}
	}()
	t.Cleanup(func() { stop.Store(true); <-ended; unix.Close(epoll) })
	return p
}

func (p *poller) Watch(fd int, w Watcher) (func(), error) {
	p.mu.Lock()
	p.next++
	at := p.next
	p.seats[at] = w
	p.mu.Unlock()
	forget := func() { p.mu.Lock(); delete(p.seats, at); p.mu.Unlock() }
	return forget, unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: at,
	})
}

// pair is an adopted connection and its peer.
func pair(t *testing.T, p Poller) (*Conn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c, ok := Adopt(p, conn).(*Conn)
	if !ok {
		t.Fatal("not adopted")
	}
	t.Cleanup(func() { c.Close(); peer.Close() })
	return c, peer.(*net.TCPConn)
}

// Every byte that is sent is read, once and in order, while the reading goes to and fro between reader and poller, and the end of the
// stream is met by whoever has it. Nothing ever waits for the limit.
func TestLendLosesNothing(t *testing.T) {
	p := newPoller(t)
	var group sync.WaitGroup
	for seed := range uint64(16) {
		c, peer := pair(t, p)
		sent := make([]byte, 1<<19)
		rng := rand.New(rand.NewPCG(seed, 1))
		var came atomic.Int64
		for i := range sent {
			sent[i] = byte(rng.Uint32())
		}
		// The sender, which ends with what it has to send, and the reader, which ends at the end of the stream.
		group.Go(func() {
			defer peer.CloseWrite()
			for rest := sent; len(rest) > 0; {
				n := min(1+rng.IntN(8000), len(rest))
				if _, err := peer.Write(rest[:n]); err != nil {
					t.Error(err)
					return
				}
				rest = rest[n:]
				// Mostly it waits to be read, so that nothing that comes later tells of what was sent before.
				for wait := rng.IntN(8) > 0; wait && came.Load() < int64(len(sent)-len(rest)); {
					runtime.Gosched()
				}
			}
		})
		group.Go(func() {
			got := readLending(t, c, rand.New(rand.NewPCG(seed, 2)), &came)
			if !bytes.Equal(got, sent) {
				t.Errorf("seed %d: %d bytes came of %d, or others", seed, len(got), len(sent))
			}
		})
	}
	group.Wait()
}

// pause is for more to come, at times, between the last read and what relies on it.
func pause(rng *rand.Rand) {
	if rng.IntN(4) == 0 {
		yield(rng.IntN(5000))
	}
}

func yield(n int) {
	for range n {
		runtime.Gosched()
	}
}

// readLending reads to the end of the stream, by turns itself and by the poller.
func readLending(t *testing.T, c *Conn, rng *rand.Rand, came *atomic.Int64) (got []byte) {
	buf := make([]byte, 4<<10)
	var failed error
	serve := func() bool {
		for read := false; !read || c.More(); read = true {
			n, err := c.TryRead(buf[:1+rng.IntN(len(buf))])
			got = append(got, buf[:n]...)
			came.Store(int64(len(got)))
			if err != nil {
				pause(rng)
				failed = err
				return err == ErrWouldBlock
			}
			if rng.IntN(8) == 0 {
				return false
			}
		}
		pause(rng)
		return true
	}
	for {
		read := c.TryRead
		if rng.IntN(8) == 0 {
			read = c.Read
		}
		n, err := read(buf)
		got = append(got, buf[:n]...)
		came.Store(int64(len(got)))
		if err == ErrWouldBlock {
			failed = nil
			pause(rng)
			begun := time.Now()
			c.Lend(serve, 20*time.Second)
			if time.Since(begun) > 10*time.Second {
				t.Error("what was sent was not reported")
			}
			if err = failed; err == nil || err == ErrWouldBlock {
				continue
			}
		}
		if err == io.EOF {
			return got
		}
		if err != nil {
			t.Error(err)
			return got
		}
	}
}

// A lent reading comes back when serve says so, behind the limit, and when the connection is closed; each time the reader is alone.
func TestLendEnds(t *testing.T) {
	c, peer := pair(t, newPoller(t))
	empty := func() {
		t.Helper()
		if n, err := c.TryRead(make([]byte, 1)); n != 0 || err != ErrWouldBlock {
			t.Fatal(n, err)
		}
	}
	never := func() bool { t.Error("served"); return true }
	empty()
	c.Lend(never, time.Millisecond)

	empty()
	if _, err := peer.Write([]byte("a")); err != nil {
		t.Fatal(err)
	}
	served := 0
	c.Lend(func() bool { served++; return false }, 10*time.Second)
	// Once by the poller; or never, if the byte was there before the reading was lent.
	if n, err := c.TryRead(make([]byte, 2)); n != 1 || err != nil || served > 1 {
		t.Fatal(n, err, served)
	}

	empty()
	time.AfterFunc(5*time.Millisecond, func() { c.Close() })
	begun := time.Now()
	c.Lend(never, 20*time.Second)
	if time.Since(begun) > 10*time.Second {
		t.Fatal("the end of the connection was not told")
	}
	if n, err := c.TryRead(make([]byte, 1)); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Fatal(n, err)
	}
	c.Lend(never, 10*time.Second) // does not begin
	if err := c.Close(); !errors.Is(err, net.ErrClosed) {
		t.Fatal("a second Close:", err)
	}
}

// A connection that is closed while the poller serves it is the reader's once that has ended.
func TestCloseWhileServed(t *testing.T) {
	c, peer := pair(t, newPoller(t))
	if _, err := c.TryRead(make([]byte, 1)); err != ErrWouldBlock {
		t.Fatal(err)
	}
	var serving atomic.Bool
	time.AfterFunc(5*time.Millisecond, func() { _, _ = peer.Write([]byte("a")) })
	c.Lend(func() bool {
		serving.Store(true)
		c.Close()
		yield(1000)
		serving.Store(false)
		return true
	}, 10*time.Second)
	if serving.Load() {
		t.Fatal("two at once")
	}
}

// Read and Write obey their deadlines, also ones that are set while they wait, and go on afterwards.
func TestDeadlines(t *testing.T) {
	c, peer := pair(t, newPoller(t))
	buf := make([]byte, 1<<20)
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
	if n, err := c.Read(buf); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(n, err)
	}
	_ = c.SetReadDeadline(time.Time{})
	time.AfterFunc(5*time.Millisecond, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	if n, err := c.Read(buf); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(n, err)
	}
	_ = c.SetReadDeadline(time.Time{})
	if _, err := peer.Write([]byte("ab")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(buf); n != 2 || err != nil {
		t.Fatal(n, err)
	}

	// Nobody reads, until the writer has given up once.
	written := 0
	_ = c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	for written < 64<<20 {
		n, err := c.Write(buf)
		written += n
		if err == nil {
			continue
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || n == len(buf) {
			t.Fatal(n, err)
		}
		break
	}
	if n, err := c.TryWrite(buf); n != 0 || err != nil {
		t.Fatalf("%d bytes, %v: the connection is full", n, err)
	}
	_ = c.SetWriteDeadline(time.Time{})
	read := make(chan int64)
	// The peer, which ends with the connection's other end.
	go func() { n, _ := io.Copy(io.Discard, peer); read <- n }()
	if n, err := c.Write(buf); n != len(buf) || err != nil {
		t.Fatal(n, err)
	}
	c.Close()
	if n := <-read; n != int64(written+len(buf)) {
		t.Fatalf("%d bytes of %d came", n, written+len(buf))
	}
}

// Close ends a Read and a Write that wait.
func TestCloseWakes(t *testing.T) {
	c, _ := pair(t, newPoller(t))
	ended := make(chan error, 2)
	// Both end with the connection.
	go func() { _, err := c.Read(make([]byte, 1)); ended <- err }()
	go func() {
		for {
			if _, err := c.Write(make([]byte, 1<<20)); err != nil {
				ended <- err
				return
			}
		}
	}()
	yield(1000)
	c.Close()
	for range 2 {
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
	}
}

// held is a poller that something else holds up: it reports nothing.
type held struct{}

func (held) Watch(int, Watcher) (func(), error) { return func() {}, nil }

// A reading that the poller has been told of and has not begun to serve comes back behind the limit all the same, and the poller, once it
// comes to it, leaves it alone.
func TestLendToHeldUpPoller(t *testing.T) {
	c, peer := pair(t, held{})
	if _, err := c.TryRead(make([]byte, 1)); err != ErrWouldBlock {
		t.Fatal(err)
	}
	served := func() bool { t.Error("served, though it is the reader's again"); return false }
	reported := make(chan bool, 1)
	// The poller, which takes the report and does no more. It ends with that.
	go func() {
		for c.state.Load() != lent {
			runtime.Gosched()
		}
		_, _ = peer.Write([]byte("a"))
		reported <- c.Report(unix.EPOLLIN)
	}()
	begun := time.Now()
	c.Lend(served, 50*time.Millisecond)
	if d := time.Since(begun); !<-reported || d > 5*time.Second {
		t.Fatalf("reported, and back after %s", d)
	}
	c.Serve()
	if n, err := c.Read(make([]byte, 2)); n != 1 || err != nil {
		t.Fatal(n, err)
	}

	// And when it has been lent again meanwhile.
	if _, err := c.TryRead(make([]byte, 1)); err != ErrWouldBlock {
		t.Fatal(err)
	}
	late := make(chan struct{})
	// The poller again.
	go func() {
		defer close(late)
		for c.state.Load() != lent {
			runtime.Gosched()
		}
		c.Serve()
	}()
	c.Lend(served, 50*time.Millisecond)
	<-late
}

// Who reads or writes while the poller reports nothing looks for itself.
func TestHeldUpPoller(t *testing.T) {
	c, peer := pair(t, held{})
	begun := time.Now()
	// The other end, which begins when this one waits, and ends with it.
	ended := make(chan struct{})
	time.AfterFunc(20*time.Millisecond, func() {
		defer close(ended)
		_, _ = peer.Write([]byte("a"))
		_, _ = io.Copy(io.Discard, peer)
	})
	buf := make([]byte, 16<<20)
	if n, err := c.Read(buf); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := c.Write(buf); n != len(buf) || err != nil {
		t.Fatal(n, err)
	}
	if d := time.Since(begun); d > 15*time.Second {
		t.Fatalf("that took %s", d)
	}
	c.Close()
	<-ended
}

// What is no TCP connection, or has nobody to wait for it, stays what it is.
func TestAdoptNothing(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if Adopt(newPoller(t), a) != a || Adopt(nil, b) != b {
		t.Fatal("adopted")
	}
}
