package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/understudy-kv/understudy/internal/client"
	"github.com/understudy-kv/understudy/internal/ports"
)

const host = "127.0.0.1"

// poll is how often a condition of a node is asked for: often enough to count as an instant among seconds.
const poll = 2 * time.Millisecond

// askLimit is how long a node may take to answer: our DBSIZE looks at every key.
const askLimit = 5 * time.Minute

// A system starts primaries and replicas of one kind.
type system interface {
	name() string
	// primary prepares a primary that has nothing yet, in dir.
	primary(dir string, shards int) (*node, error)
	// replica prepares a replica, in dir, of what serves replicas on the ports from base on.
	replica(dir, name string, base, shards int) (*node, error)
}

// node is a process of a system: what starts it, and what it is doing.
type node struct {
	name     string
	dir      string // its own
	program  string
	args     []string
	addr     string // for clients
	base     int    // a primary's first port for replicas
	row      int    // how many there are
	announce bool   // it prints a line when it is ready
	profile  bool   // it writes a profile when it is asked to stop
	proc     *process
	conn     *client.Conn
	release  func() error // of its ports
}

// start launches the node and waits until it serves.
func (n *node) start(ctx context.Context) error {
	if err := n.launch(); err != nil {
		return err
	}
	return n.serves(ctx)
}

func (n *node) launch() (err error) {
	if err := os.MkdirAll(n.dir, 0o755); err != nil {
		return err
	}
	n.proc, err = launch(filepath.Dir(n.dir), n.name, n.program, n.args...)
	return err
}

// serves waits until the node answers reads: until it has loaded what it has.
func (n *node) serves(ctx context.Context) error {
	if n.announce {
		if err := n.proc.awaitReady(ctx); err != nil {
			return err
		}
	}
	return await(ctx, startLimit, n.name+" serves", func() (bool, error) {
		if err := n.proc.alive(); err != nil {
			return false, err
		}
		c, err := client.Dial(ctx, n.addr)
		if err != nil {
			return false, nil
		}
		c.SetTimeout(askLimit)
		if _, err := c.Do("GET", "bench:ready"); err != nil {
			return false, c.Close()
		}
		n.conn = c
		return true, nil
	})
}

// kill ends the process at once.
func (n *node) kill() (err error) {
	if n.conn != nil {
		err = n.conn.Close()
		n.conn = nil
	}
	if n.proc != nil {
		err = errors.Join(err, n.proc.kill())
	}
	return err
}

// stop asks the process to end by itself.
func (n *node) stop() (err error) {
	if n.conn != nil {
		err = n.conn.Close()
		n.conn = nil
	}
	if n.proc != nil {
		err = errors.Join(err, n.proc.terminate())
	}
	return err
}

// info asks for a section of INFO.
func (n *node) info(section string) (map[string]string, error) {
	v, err := n.conn.Do("INFO", section)
	if err != nil {
		return nil, err
	}
	return parseInfo(v.Str), nil
}

// number asks for a command's integer reply.
func (n *node) number(args ...string) (int64, error) {
	v, err := n.conn.Do(args...)
	return v.Int, err
}

// parseInfo reads INFO's lines.
func parseInfo(text string) map[string]string {
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && !strings.HasPrefix(line, "#") {
			fields[k] = v
		}
	}
	return fields
}

// await polls until the condition holds.
func await(ctx context.Context, limit time.Duration, what string, condition func() (bool, error)) error {
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	for {
		ok, err := condition()
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if ok {
			return nil
		}
		select {
		case <-ticker.C:
		case <-deadline.C:
			return fmt.Errorf("not within %s: %s", limit, what)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// address reserves ports for a node: one for clients and, for ours, a row for replicas.
func (n *node) address(row int) error {
	client, free, err := ports.Reserve(host, 1)
	if err != nil {
		return err
	}
	n.addr, n.base, n.row, n.release = net.JoinHostPort(host, strconv.Itoa(client)), client, 1, free
	if row == 0 {
		return nil
	}
	base, freeRow, err := ports.Reserve(host, row)
	if err != nil {
		return errors.Join(err, free())
	}
	n.base, n.row = base, row
	n.release = func() error { return errors.Join(free(), freeRow()) }
	return nil
}

// port is the one that clients use.
func (n *node) port() string {
	_, port, _ := net.SplitHostPort(n.addr)
	return port
}
