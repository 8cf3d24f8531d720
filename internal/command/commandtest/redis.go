package commandtest

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/eventually"
	"github.com/understudy-kv/understudy/internal/ports"
	"github.com/understudy-kv/understudy/internal/resp"
)

// StartRedis runs a redis-server without persistence on a free port of the loopback interface, waits until it answers,
// and returns its address. More arguments ("--databases", "1") may follow. The server is killed when the test ends. A
// machine without redis-server skips the test.
func StartRedis(t testing.TB, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("there is no redis-server to compare with: install the package redis-server (Debian, Ubuntu) or redis")
	}
	port, release, err := ports.Reserve("127.0.0.1", 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := release(); err != nil {
			t.Error(err)
		}
	})
	args = append([]string{"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir()}, args...)
	cmd := exec.Command(path, args...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Kill)
		_ = cmd.Wait()
		if t.Failed() && testing.Verbose() {
			t.Logf("redis-server said:\n%s", output.Bytes())
		}
	})
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	eventually.True(t, 10*time.Second, "redis-server answers", func() bool {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return addr
}

// Conn is a client's connection in a test. Whatever goes wrong on it fails the test.
type Conn struct {
	t    testing.TB
	conn net.Conn
	r    *resp.Reader
}

// Dial connects to a server and, for protocol 3, says HELLO 3. The connection is closed when the test ends.
func Dial(t testing.TB, addr string, proto int) *Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c := &Conn{t: t, conn: conn, r: resp.NewReader(conn)}
	if proto == 3 {
		c.Do("HELLO", "3")
	}
	return c
}

// Send sends a command and returns the reply's bytes, valid until the next call.
func (c *Conn) Send(args [][]byte) []byte {
	c.t.Helper()
	if err := c.conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.conn.Write(resp.AppendCommand(nil, args...)); err != nil {
		c.t.Fatalf("%s: %v", Format(args), err)
	}
	raw, _, err := c.r.ReadRaw()
	if err != nil {
		c.t.Fatalf("%s: %v behind %q", Format(args), err, raw)
	}
	return raw
}

// Do is Send for words.
func (c *Conn) Do(words ...string) []byte {
	c.t.Helper()
	args := make([][]byte, len(words))
	for i, w := range words {
		args[i] = []byte(w)
	}
	return c.Send(args)
}
