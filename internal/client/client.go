// Package client is a small RESP client: what replctl, the demo and the end-to-end tests need, and no more. It speaks
// RESP2, keeps one connection, and neither redials nor retries.
package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/understudy-kv/understudy/internal/resp"
	"github.com/understudy-kv/understudy/internal/status"
)

// Conn is a connection to a node. It is not safe for concurrent use.
type Conn struct {
	addr    string
	conn    net.Conn
	replies *resp.Reader
	out     []byte
	pending int
	timeout time.Duration
	stop    func() bool
}

// Dial connects. When ctx ends, so does the connection, and calls in progress fail.
func Dial(ctx context.Context, addr string) (*Conn, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &Conn{addr: addr, conn: c, replies: resp.NewReader(c), stop: context.AfterFunc(ctx, func() { c.Close() })}, nil
}

// Addr is the address that was dialled.
func (c *Conn) Addr() string { return c.addr }

// SetTimeout limits each Flush and Do that follows. 0, the default, lifts the limit.
func (c *Conn) SetTimeout(d time.Duration) { c.timeout = d }

// Queue adds a command to the pipeline.
func (c *Conn) Queue(args ...string) {
	c.out = resp.AppendCommand(c.out, args...)
	c.pending++
}

// Queued is the size in bytes of what Queue has gathered.
func (c *Conn) Queued() int { return len(c.out) }

// Flush sends the pipeline and calls f, which may be nil, with each reply in order. It returns the first of: the
// connection's error, f's error, and, if f is nil, the first error reply. After a connection's error the Conn is of no use.
func (c *Conn) Flush(f func(i int, v resp.Value) error) error {
	out, n := c.out, c.pending
	c.out, c.pending = c.out[:0], 0
	deadline := time.Time{}
	if c.timeout > 0 {
		deadline = time.Now().Add(c.timeout)
	}
	if err := c.conn.SetDeadline(deadline); err != nil {
		return fmt.Errorf("%s: %w", c.addr, err)
	}
	if _, err := c.conn.Write(out); err != nil {
		return fmt.Errorf("%s: %w", c.addr, err)
	}
	var first error
	for i := range n {
		v, err := c.replies.Read()
		if err != nil {
			return fmt.Errorf("%s: %w", c.addr, err)
		}
		if f != nil {
			err = f(i, v)
		} else {
			err = v.Err()
		}
		if err != nil && first == nil {
			first = fmt.Errorf("%s: %w", c.addr, err)
		}
	}
	return first
}

// Do sends one command and returns its reply. An error reply is an error, of type [resp.ReplyError].
func (c *Conn) Do(args ...string) (reply resp.Value, err error) {
	c.Queue(args...)
	err = c.Flush(func(_ int, v resp.Value) error {
		reply = v
		return v.Err()
	})
	return reply, err
}

// Status asks the node for its figures.
func (c *Conn) Status() (status.Node, error) {
	var n status.Node
	v, err := c.Do("REPL.STATUS")
	var said resp.ReplyError
	switch {
	case errors.As(err, &said) && strings.HasPrefix(said.Error(), "ERR unknown command"):
		return n, fmt.Errorf("%s: it speaks RESP, but is no Understudy node: it answered %w", c.addr, err)
	case errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET):
		return n, fmt.Errorf("%s: it closed the connection without an answer; give the address that a node serves clients on, listen= in its ready line, and not a replication port: %w", c.addr, err)
	case err != nil:
		return n, err
	}
	if err := json.Unmarshal([]byte(v.Str), &n); err != nil {
		return n, fmt.Errorf("%s: REPL.STATUS answered what is no status: %w", c.addr, err)
	}
	return n, nil
}

// Close ends the connection.
func (c *Conn) Close() error {
	c.stop()
	return c.conn.Close()
}
