package faultproxy

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is a server behind a proxy. Each accepted connection is handed to the test.
type pair struct {
	*Proxy
	t        *testing.T
	accepted chan *net.TCPConn
}

func start(t *testing.T) *pair {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{t: t, accepted: make(chan *net.TCPConn, 16)}
	var wg sync.WaitGroup
	// start runs one accept loop; it ends when the listener is closed, and the cleanup waits for it.
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.accepted <- c.(*net.TCPConn)
		}
	})
	if p.Proxy, err = Start(Options{Target: l.Addr().String()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		l.Close()
		wg.Wait()
		close(p.accepted)
		for c := range p.accepted {
			c.Close()
		}
	})
	return p
}

func (p *pair) dial() *net.TCPConn {
	p.t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

func (p *pair) connect() (client, server *net.TCPConn) {
	p.t.Helper()
	client = p.dial()
	select {
	case server = <-p.accepted:
		p.t.Cleanup(func() { server.Close() })
		server.SetDeadline(time.Now().Add(20 * time.Second))
	case <-time.After(20 * time.Second):
		p.t.Fatal("the proxy did not dial the server")
	}
	return client, server
}

func send(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := c.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v, want %q", got, err, want)
	}
}

// silent checks that nothing at all arrives at c for a while: no byte, no end.
func silent(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); !isTimeout(err) {
		t.Fatalf("read %d bytes, %v, want silence", n, err)
	}
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func TestPassesEverythingUnchangedAndBothEnds(t *testing.T) {
	p := start(t)
	client, server := p.connect()
	data := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	var sent sync.WaitGroup
	// The sender ends when everything is written; the test waits for it.
	sent.Go(func() {
		client.Write(data)
		client.CloseWrite()
	})
	got, err := io.ReadAll(server)
	sent.Wait()
	if err != nil || sha256.Sum256(got) != sha256.Sum256(data) {
		t.Fatalf("%d bytes, %v, want the %d that were sent", len(got), err, len(data))
	}
	send(t, server, "back")
	server.CloseWrite()
	if got, err := io.ReadAll(client); string(got) != "back" || err != nil {
		t.Errorf("read %q, %v behind a half-close", got, err)
	}
	if p.Bytes(ToServer) != uint64(len(data)) || p.Bytes(ToClient) != 4 || p.Accepted() != 1 {
		t.Errorf("counted %d, %d, %d", p.Bytes(ToServer), p.Bytes(ToClient), p.Accepted())
	}
}

func TestCutResetsBothEnds(t *testing.T) {
	p := start(t)
	client, server := p.connect()
	send(t, client, "x")
	expect(t, server, "x")
	p.Cut()
	for _, c := range []net.Conn{client, server} {
		if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("read: %v, want the connection's end", err)
		}
	}
	client, server = p.connect()
	send(t, client, "again")
	expect(t, server, "again")
}

func TestRefuseIsTheKernelsRefusal(t *testing.T) {
	p := start(t)
	client, server := p.connect()
	if err := p.Refuse(true); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("dial: %v, %v, want connection refused", c, err)
	}
	send(t, client, "old links go on")
	expect(t, server, "old links go on")
	if err := p.Heal(); err != nil {
		t.Fatal(err)
	}
	client, server = p.connect()
	send(t, client, "x")
	expect(t, server, "x")
}

func TestBlackHoleHidesBytesAndEndsUntilItIsLifted(t *testing.T) {
	for _, d := range []Direction{ToServer, ToClient} {
		t.Run(d.String(), func(t *testing.T) {
			p := start(t)
			client, server := p.connect()
			from, to := client, server
			if d == ToClient {
				from, to = server, client
			}
			send(t, from, "before")
			expect(t, to, "before")
			p.BlackHole(d, true)
			send(t, from, "held")
			silent(t, to)
			send(t, to, "other way")
			expect(t, from, "other way")
			from.Close()
			silent(t, to)
			p.BlackHole(d, false)
			expect(t, to, "held")
			if _, err := to.Read(make([]byte, 1)); err == nil || isTimeout(err) {
				t.Errorf("read: %v, want the end that was held back", err)
			}
		})
	}
}

func TestHoleAfterLetsOneMessagePass(t *testing.T) {
	p := start(t)
	client, server := p.connect()
	p.HoleAfter(ToServer, 1)
	send(t, server, "not counted")
	expect(t, client, "not counted")
	send(t, client, "message")
	expect(t, server, "message")
	send(t, client, "lost")
	silent(t, server)
	if err := p.Heal(); err != nil {
		t.Fatal(err)
	}
	expect(t, server, "lost")
}

// The reset that answers a write to a closed socket travels through the hole too (invariant 2).
func TestBlackHoleHidesAResetFromTheSender(t *testing.T) {
	p := start(t)
	client, server := p.connect()
	send(t, client, "x")
	expect(t, server, "x")
	p.BlackHole(ToServer, true)
	client.SetLinger(0)
	client.Close()
	for range 5 {
		send(t, server, "into the void")
	}
	silent(t, server)
	p.BlackHole(ToServer, false)
	if _, err := server.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("read: %v, want the connection's end", err)
	}
}

func TestBlackHoleTakesNewConnectionsNowhere(t *testing.T) {
	p := start(t)
	p.BlackHole(ToServer, true)
	c := p.dial()
	send(t, c, "hello?")
	silent(t, c)
	if len(p.accepted) != 0 {
		t.Fatal("the server was dialled through a black hole")
	}
	p.BlackHole(ToServer, false)
	server := <-p.accepted
	defer server.Close()
	expect(t, server, "hello?")
}

func TestDelayHoldsBytesBackButNotTheirRate(t *testing.T) {
	p := start(t)
	client, server := p.connect()
	p.Delay(ToServer, 150*time.Millisecond)
	begin := time.Now()
	for range 20 {
		send(t, client, "0123456789")
	}
	io.ReadFull(server, make([]byte, 200))
	if took := time.Since(begin); took < 150*time.Millisecond || took > 3*time.Second {
		t.Errorf("20 pieces took %s, want one delay of 150ms and not twenty", took)
	}
}

func TestLimitSlowsDown(t *testing.T) {
	p := start(t)
	client, server := p.connect()
	p.Limit(ToServer, 100_000)
	begin := time.Now()
	send(t, client, string(make([]byte, 30_000)))
	io.ReadFull(server, make([]byte, 30_000))
	if took := time.Since(begin); took < 250*time.Millisecond {
		t.Errorf("30 kB at 100 kB/s took %s", took)
	}
}

func TestCutAfterDeliversExactlyThatMany(t *testing.T) {
	for _, n := range []int{0, 1, 100_000, 200_000} {
		p := start(t)
		client, server := p.connect()
		p.CutAfter(ToServer, uint64(n))
		var sent sync.WaitGroup
		// The sender ends when the link breaks; the test waits for it.
		sent.Go(func() {
			for {
				if _, err := client.Write(make([]byte, 50_000)); err != nil {
					return
				}
			}
		})
		got, _ := io.ReadAll(server)
		server.Close()
		sent.Wait()
		if len(got) != n {
			t.Errorf("CutAfter(%d) let %d bytes through", n, len(got))
		}
		client, server = p.connect()
		send(t, client, "x")
		expect(t, server, "x")
	}
}

func TestFlipAfterDamagesOneByte(t *testing.T) {
	p := start(t)
	client, server := p.connect()
	send(t, client, "abc")
	expect(t, server, "abc")
	p.FlipAfter(ToServer, 2)
	send(t, client, "defgh")
	expect(t, server, "de"+string(rune('f'^0x10))+"gh")
	send(t, client, "ijkl")
	expect(t, server, "ijkl")
}

func TestSeveralPortsInARow(t *testing.T) {
	p := start(t)
	_, port, _ := net.SplitHostPort(p.target(0))
	base, _ := strconv.Atoi(port)
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(base+1)))
	if err != nil {
		t.Skip("the next port is taken")
	}
	defer l.Close()
	q, err := Start(Options{Target: p.target(0), Ports: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	c, err := net.Dial("tcp", net.JoinHostPort(q.host, strconv.Itoa(q.port+1)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	send(t, c, "second")
	expect(t, s, "second")
}

func TestJudge(t *testing.T) {
	on := func(at uint64) trigger { return trigger{set: true, at: at} }
	for _, c := range []struct {
		name string
		f    faults
		n    int
		want verdict
	}{
		{"clean", faults{bytes: 5}, 10, verdict{pass: 10, flip: -1}},
		{"cut before", faults{bytes: 5, cut: on(5)}, 10, verdict{pass: 0, flip: -1, cut: true}},
		{"cut inside", faults{bytes: 5, cut: on(9)}, 10, verdict{pass: 4, flip: -1, cut: true}},
		{"cut behind the last", faults{bytes: 5, cut: on(15)}, 10, verdict{pass: 10, flip: -1, cut: true}},
		{"cut later", faults{bytes: 5, cut: on(16)}, 10, verdict{pass: 10, flip: -1}},
		{"flip first", faults{bytes: 5, flip: on(5)}, 10, verdict{pass: 10, flip: 0}},
		{"flip last", faults{bytes: 5, flip: on(14)}, 10, verdict{pass: 10, flip: 9}},
		{"flip later", faults{bytes: 5, flip: on(15)}, 10, verdict{pass: 10, flip: -1}},
		{"flip behind a cut waits", faults{bytes: 5, flip: on(9), cut: on(7)}, 10, verdict{pass: 2, flip: -1, cut: true}},
	} {
		f := c.f
		if got := f.judge(c.n); got != c.want || f.bytes != c.f.bytes+uint64(got.pass) {
			t.Errorf("%s: %+v, counted %d, want %+v", c.name, got, f.bytes, c.want)
		}
	}
}
