package server

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/command/commandtest"
	"github.com/understudy-kv/understudy/internal/eventually"
)

// twin knows what one client is answered: nobody else touches its keys.
type twin struct {
	id   int
	rand *rand.Rand
	n    [4]int // counters, on several shards
	send bytes.Buffer
	want bytes.Buffer
}

func (w *twin) key(i int) string { return fmt.Sprintf("twin%d:%d", w.id, i) }

func (w *twin) add(reply string, args ...string) {
	fmt.Fprintf(&w.send, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&w.send, "$%d\r\n%s\r\n", len(a), a)
	}
	w.want.WriteString(reply)
}

// step adds a command: mostly ones that a reactor executes itself, and some that it leaves to a goroutine.
func (w *twin) step() {
	i := w.rand.IntN(len(w.n))
	switch k := w.rand.IntN(16); {
	case k < 6:
		w.n[i]++
		w.add(fmt.Sprintf(":%d\r\n", w.n[i]), "INCR", w.key(i))
	case k < 10:
		text := fmt.Sprint(w.n[i])
		if w.n[i] == 0 {
			w.add("$-1\r\n", "GET", w.key(i))
			return
		}
		w.add(fmt.Sprintf("$%d\r\n%s\r\n", len(text), text), "GET", w.key(i))
	case k < 12:
		w.n[i] = w.rand.IntN(1000) + 1
		w.add("+OK\r\n", "SET", w.key(i), fmt.Sprint(w.n[i]))
	case k == 12:
		w.add("+PONG\r\n", "PING")
	case k == 13:
		w.n = [4]int{7, 8, 9, 1}
		w.add("+OK\r\n", "MSET", w.key(0), "7", w.key(1), "8", w.key(2), "9", w.key(3), "1")
	case k == 14:
		w.n[i]++
		w.add("+OK\r\n", "MULTI")
		w.add("+QUEUED\r\n", "INCR", w.key(i))
		w.add(fmt.Sprintf("*1\r\n:%d\r\n", w.n[i]), "EXEC")
	default:
		w.add("-ERR unknown command 'NONE', with args beginning with: \r\n", "NONE")
	}
}

// Every client is answered what it asked, in order, however its bytes are cut, while many others are served beside it, by
// the reactor and by goroutines in turns.
func TestTwinsBesideEachOther(t *testing.T) {
	r := start(t, 3, nil)
	var done sync.WaitGroup
	for id := range 12 {
		// A client. It ends when it was answered everything, or wrongly, and is waited for below.
		done.Go(func() {
			w := &twin{id: id, rand: rand.New(rand.NewPCG(uint64(id), 1))}
			nc, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer nc.Close()
			_ = nc.SetDeadline(time.Now().Add(time.Minute))
			for round := range 150 {
				w.send.Reset()
				w.want.Reset()
				for range 1 + w.rand.IntN(1+w.rand.IntN(60)) {
					w.step()
				}
				for b := w.send.Bytes(); len(b) > 0; runtime.Gosched() {
					n := len(b)
					if w.rand.IntN(2) == 0 {
						n = 1 + w.rand.IntN(n)
					}
					if _, err := nc.Write(b[:n]); err != nil {
						t.Error(err)
						return
					}
					b = b[n:]
				}
				got := make([]byte, w.want.Len())
				if n, err := io.ReadFull(nc, got); err != nil || !bytes.Equal(got, w.want.Bytes()) {
					t.Errorf("client %d, round %d: %v\nsent %q\ngot  %q\nwant %q", id, round, err, w.send.String(), got[:n], w.want.String())
					return
				}
			}
		})
	}
	done.Wait()
}

// A client that does not read its replies holds up nobody, and gets all of them once it reads: large ones, and small ones
// that fill the socket at last.
func TestSlowReader(t *testing.T) {
	r := start(t, 2, nil)
	other := commandtest.Dial(t, r.addr, 2)
	for _, c := range []struct{ value, gets, pipelines int }{{1 << 20, 40, 1}, {8 << 10, 20, 200}} {
		value := strings.Repeat("v", c.value)
		other.Do("SET", "k", value)
		other.Do("SET", "n", "0")
		stuck := func() net.Conn {
			nc, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { nc.Close() })
			for range c.pipelines {
				if _, err := io.WriteString(nc, strings.Repeat("GET k\r\n", c.gets)); err != nil {
					t.Fatal(err)
				}
				other.Do("GET", "n") // so that the next ones are read for themselves
			}
			return nc
		}
		a, b := stuck(), stuck()
		eventually.True(t, 5*time.Second, "both are there", func() bool { return r.clients.count() == 3 })
		for i := range 100 {
			if got := string(other.Do("INCR", "n")); got != fmt.Sprintf(":%d\r\n", i+1) {
				t.Fatalf("got %q", got)
			}
		}
		other.Do("CLIENT", "KILL", "ADDR", b.LocalAddr().String())
		eventually.True(t, 5*time.Second, "the killed one is gone", func() bool { return r.clients.count() == 2 })
		want := fmt.Sprintf("$%d\r\n%s\r\n", len(value), value)
		got := make([]byte, len(want))
		_ = a.SetReadDeadline(time.Now().Add(30 * time.Second))
		for i := range c.gets * c.pipelines {
			if _, err := io.ReadFull(a, got); err != nil || string(got) != want {
				t.Fatalf("reply %d: %v", i, err)
			}
		}
		a.Close()
		eventually.True(t, 5*time.Second, "it is gone", func() bool { return r.clients.count() == 1 })
	}
}

// Who has sent all it will is answered before the connection ends.
func TestHalfClose(t *testing.T) {
	r := start(t, 2, nil)
	for _, c := range [][2]string{
		{"SET a 1\r\nGET a\r\n", "+OK\r\n$1\r\n1\r\n"},
		{"PING\r\nGET a\r\n", "+PONG\r\n$1\r\n1\r\n"},
		{"MULTI\r\nGET a\r\nEXEC\r\n", "+OK\r\n+QUEUED\r\n*1\r\n$1\r\n1\r\n"},
		{"GET a\r\nGET", "$1\r\n1\r\n"},
		{"GET a\r\n*1\r\n!\r\n", "$1\r\n1\r\n-ERR Protocol error: expected '$', got '!'\r\n"},
	} {
		nc, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = nc.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.WriteString(nc, c[0]); err != nil {
			t.Fatal(err)
		}
		if err := nc.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(nc)
		if err != nil || string(got) != c[1] {
			t.Errorf("%q: got %q, %v; want %q", c[0], got, err, c[1])
		}
		nc.Close()
	}
	eventually.True(t, 5*time.Second, "all are gone", func() bool { return r.clients.count() == 0 })
}

// A write that is held holds up nobody else.
func TestHeldWriteBesideReads(t *testing.T) {
	r := start(t, 2, nil)
	a, b := commandtest.Dial(t, r.addr, 2), commandtest.Dial(t, r.addr, 2)
	a.Do("SET", "k", "1")
	release := r.ks.HoldWrites()
	defer release()
	done := make(chan string, 1)
	go func() { done <- string(a.Do("SET", "k", "2")) }() // ended by release, and waited for
	eventually.True(t, 5*time.Second, "it waits", func() bool { return strings.Contains(string(b.Do("INFO", "clients")), "blocked_clients:1") })
	if got := string(b.Do("GET", "k")); got != "$1\r\n1\r\n" {
		t.Errorf("got %q", got)
	}
	release()
	if got := <-done; got != "+OK\r\n" {
		t.Errorf("got %q", got)
	}
}
