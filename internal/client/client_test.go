package client

import (
	"bufio"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/understudy-kv/understudy/internal/resp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answering serves one connection: whatever arrives, the replies go out, and each command's words are noted.
func answering(t *testing.T, replies string) (addr string, got func() []string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var words []string
	// answering starts one goroutine; it ends with the connection, and got waits for it.
	wg.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		c.Write([]byte(replies))
		for s := bufio.NewScanner(c); s.Scan(); {
			if line := s.Text(); line != "" && line[0] != '*' && line[0] != '$' {
				words = append(words, line)
			}
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String(), func() []string { wg.Wait(); return words }
}

func dial(t *testing.T, ctx context.Context, addr string) *Conn {
	t.Helper()
	c, err := Dial(ctx, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestRepliesInOrder(t *testing.T) {
	addr, got := answering(t, "+OK\r\n:7\r\n-ERR no\r\n$2\r\nhi\r\n")
	c := dial(t, t.Context(), addr)
	c.Queue("SET", "k", "v")
	c.Queue("INCR", "n")
	var seen []byte
	if err := c.Flush(func(i int, v resp.Value) error { seen = append(seen, v.Kind); return nil }); err != nil || string(seen) != "+:" {
		t.Fatalf("%q, %v", seen, err)
	}
	var reply resp.ReplyError
	if _, err := c.Do("BAD"); !errors.As(err, &reply) || reply != "ERR no" || !strings.Contains(err.Error(), addr) {
		t.Errorf("an error reply: %v", err)
	}
	if v, err := c.Do("GET", "k"); err != nil || v.Str != "hi" {
		t.Errorf("%+v, %v", v, err)
	}
	c.Close()
	if words := strings.Join(got(), " "); words != "SET k v INCR n BAD GET k" {
		t.Errorf("sent %s", words)
	}
}

func TestStatus(t *testing.T) {
	addr, _ := answering(t, "$42\r\n{\"role\":\"primary\",\"shards\":[{\"offset\":9}]}\r\n$4\r\nnope\r\n")
	c := dial(t, t.Context(), addr)
	if n, err := c.Status(); err != nil || n.Role != "primary" || n.Shards[0].Offset != 9 {
		t.Errorf("%+v, %v", n, err)
	}
	if _, err := c.Status(); err == nil || !strings.Contains(err.Error(), "no status") {
		t.Errorf("%v", err)
	}
	c.Close()
}

func TestTimeoutEndsAWaitingCall(t *testing.T) {
	addr, _ := answering(t, "")
	c := dial(t, t.Context(), addr)
	c.SetTimeout(20 * time.Millisecond)
	var ne net.Error
	if _, err := c.Do("PING"); !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("%v, want a timeout", err)
	}
	c.Close()
}

func TestContextEndsAWaitingCall(t *testing.T) {
	addr, _ := answering(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	c := dial(t, ctx, addr)
	cancel()
	if _, err := c.Do("PING"); err == nil {
		t.Error("a call on a connection whose context has ended succeeded")
	}
	if _, err := Dial(ctx, addr); err == nil {
		t.Error("Dial succeeded with a context that has ended")
	}
}

// What is no node is told apart from a node with a fault, with what to ask instead.
func TestStatusOfWhatIsNoNode(t *testing.T) {
	for replies, want := range map[string]string{
		"-ERR unknown command 'REPL.STATUS', with args beginning with: \r\n": "is no Understudy node",
		"": "not a replication port",
	} {
		addr, _ := answering(t, replies)
		if replies == "" {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			// It takes one connection and closes it unanswered; it ends with that.
			go func() {
				if c, err := l.Accept(); err == nil {
					c.Close()
				}
			}()
			addr = l.Addr().String()
		}
		_, err := dial(t, t.Context(), addr).Status()
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), addr) {
			t.Errorf("%q gave %v, want %q", replies, err, want)
		}
	}
}
