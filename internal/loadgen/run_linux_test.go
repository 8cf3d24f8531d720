package loadgen

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// server is a slow and simple RESP server: it keeps what is SET, and counts.
type server struct {
	addr string
	mu   struct {
		sync.Mutex
		sets  map[string]int
		all   int64
		onSet func(value string)
	}
	answer func(s *server, n int64) string // instead of what it would, if it gives any
}

// taken are the keys that were SET, and how many requests came.
func (s *server) taken() (keys int, all int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.sets), s.mu.all
}

// onSet has f called with each value, before the SET is answered.
func (s *server) onSet(f func(value string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.onSet = f
}

func serve(t *testing.T, answer func(s *server, n int64) string) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: l.Addr().String(), answer: answer}
	s.mu.sets = map[string]int{}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			done.Go(func() {
				defer c.Close()
				s.talk(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		done.Wait()
	})
	return s
}

func (s *server) talk(c net.Conn) {
	r := bufio.NewReader(c)
	for {
		var args []string
		n, err := header(r, '*')
		for range n {
			size, err := header(r, '$')
			if err != nil {
				return
			}
			b := make([]byte, size+2)
			if _, err := io.ReadFull(r, b); err != nil {
				return
			}
			args = append(args, string(b[:size]))
		}
		if err != nil {
			return
		}
		s.mu.Lock()
		s.mu.all++
		all := s.mu.all
		reply := "$-1\r\n"
		if args[0] == "SET" {
			s.mu.sets[args[1]]++
			if s.mu.onSet != nil {
				s.mu.onSet(args[2])
			}
			reply = "+OK\r\n"
		} else if s.mu.sets[args[1]] > 0 {
			reply = "$3\r\nabc\r\n"
		}
		s.mu.Unlock()
		if s.answer != nil {
			if a := s.answer(s, all); a != "" {
				reply = a
			}
		}
		if _, err := c.Write([]byte(reply)); err != nil {
			return
		}
	}
}

func header(r *bufio.Reader, kind byte) (int, error) {
	line, err := r.ReadBytes('\n')
	if err != nil || len(line) < 3 || line[0] != kind {
		return 0, errors.Join(err, fmt.Errorf("%q", line))
	}
	return strconv.Atoi(string(bytes.TrimSpace(line[1:])))
}

// TestSequentialWritesEachKeyOnce: whatever the threads and the pipeline, and values that a socket does not take at once.
func TestSequentialWritesEachKeyOnce(t *testing.T) {
	for _, c := range []Config{{Threads: 1, Pipeline: 1}, {Threads: 3, Pipeline: 16, Conns: 7}, {Threads: 2, Pipeline: 50, Conns: 3, Value: 100_000}} {
		s := serve(t, nil)
		c.Addr, c.Keys, c.Order = s.addr, 1001, Sequential
		r, err := Run(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if keys, all := s.taken(); r.Requests != 1001 || all != 1001 || keys != 1001 {
			t.Errorf("%+v: %d requests were counted and %d arrived, of %d keys; want 1001 each", c, r.Requests, all, keys)
		}
	}
}

func TestRequestsAndMisses(t *testing.T) {
	s := serve(t, nil)
	r, err := Run(t.Context(), Config{Addr: s.addr, Requests: 5003, Pipeline: 7, Threads: 2, Gets: 100, Latency: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, all := s.taken(); r.Requests != 5003 || r.Misses != 5003 || all != 5003 {
		t.Errorf("%d requests, %d misses, %d arrived; want 5003 each", r.Requests, r.Misses, all)
	}
	if r.Latency.Count() < 5003/7 || r.Latency.Max() <= 0 || r.CPU <= 0 {
		t.Errorf("%d latencies up to %s, CPU %s", r.Latency.Count(), r.Latency.Max(), r.CPU)
	}
}

// TestAnErrorEndsTheRun: an operation that failed is in no figure.
func TestAnErrorEndsTheRun(t *testing.T) {
	s := serve(t, func(_ *server, n int64) string {
		if n == 300 {
			return "-READONLY no writes here\r\n"
		}
		return ""
	})
	_, err := Run(t.Context(), Config{Addr: s.addr, Requests: 1000, Pipeline: 4})
	if !errors.Is(err, errReply) || !strings.Contains(err.Error(), "READONLY no writes here") {
		t.Errorf("%v, want the server's error", err)
	}
}

func TestAServerThatSaysNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and never reads
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Run(t.Context(), Config{Addr: l.Addr().String(), Requests: 100, Conns: 1, Patience: 200 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "not answered") {
		t.Errorf("%v, want one that tells of requests that were not answered", err)
	}
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if _, err = Run(ctx, Config{Addr: l.Addr().String(), Requests: 100, Conns: 1}); !errors.Is(err, stop) {
		t.Errorf("%v, want the cause of ctx's end", err)
	}
}

// TestLatencyIsFromWhenARequestWasDue: a server that stands still for 200 ms delays every request that was due meanwhile, not
// only those that it had been sent (coordinated omission).
func TestLatencyIsFromWhenARequestWasDue(t *testing.T) {
	var once sync.Once
	s := serve(t, func(s *server, n int64) string {
		if n >= 200 {
			once.Do(func() {
				s.mu.Lock() // nobody is answered
				<-time.After(200 * time.Millisecond)
				s.mu.Unlock()
			})
		}
		return ""
	})
	r, err := Run(t.Context(), Config{Addr: s.addr, Rate: 2000, Duration: 600 * time.Millisecond, Conns: 4})
	if err != nil {
		t.Fatal(err)
	}
	if r.Requests != 1200 {
		t.Errorf("%d requests, want the 1200 that were due", r.Requests)
	}
	// 400 of 1200 were due in the pause, and waited 100 ms on average; 10 % of all waited longer than 140 ms.
	if p90 := r.Latency.Quantile(0.90); p90 < 100*time.Millisecond {
		t.Errorf("p90 is %s: those that were due in the pause do not count", p90)
	}
	if r.Latency.Max() < 190*time.Millisecond {
		t.Errorf("the longest is %s, want what the pause took", r.Latency.Max())
	}
}

// TestStop: a run without an end of its own ends when it is told to, with every reply.
func TestStop(t *testing.T) {
	s := serve(t, nil)
	stop := make(chan struct{})
	time.AfterFunc(50*time.Millisecond, func() { close(stop) })
	r, err := Run(t.Context(), Config{Addr: s.addr, Stop: stop, Pipeline: 3})
	if err != nil {
		t.Fatal(err)
	}
	if _, all := s.taken(); r.Requests != all || all == 0 {
		t.Errorf("%d requests were counted and %d arrived, want as many and some", r.Requests, all)
	}
}

func TestConfigFaults(t *testing.T) {
	_, err := Run(t.Context(), Config{Conns: 1, Threads: 2, Pipeline: -1, Gets: 101, Value: -1, Rate: -1, Keys: 1 << 33})
	for _, want := range []string{"address", "threads", "pipeline", "GET", "values", "rate", "keys", "never end"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: it does not tell of %s", err, want)
		}
	}
}
