package replctl

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/client"
	"github.com/understudy-kv/understudy/internal/eventually"
	"github.com/understudy-kv/understudy/internal/server"
)

// program is one of the two programs, run in the test's own process.
type program struct {
	t      *testing.T
	stdout lines
	log    lines
	cancel context.CancelFunc
	done   sync.WaitGroup
	code   int
}

type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func launch(t *testing.T, run func(context.Context, []string, io.Writer, io.Writer) int, args ...string) *program {
	t.Helper()
	p := &program{t: t}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	args = append(args, "--listen", "127.0.0.1:0", "--backlog-memory", "1MiB", "--memory", "32MiB")
	// The program's goroutine ends when its context does; stop waits for it.
	p.done.Go(func() { p.code = run(ctx, args, &p.stdout, &p.log) })
	t.Cleanup(func() { p.stop() })
	eventually.True(t, 20*time.Second, "the program is ready", func() bool { return strings.Contains(p.stdout.String(), "\n") })
	return p
}

func (p *program) field(name string) string {
	for _, f := range strings.Fields(p.stdout.String()) {
		if v, ok := strings.CutPrefix(f, name+"="); ok {
			return v
		}
	}
	p.t.Fatalf("no %s in %q\n%s", name, p.stdout.String(), p.log.String())
	return ""
}

// base is where replicas of the program's node connect. A new replica's ready line does not have it yet.
func (p *program) base() string {
	p.t.Helper()
	n, err := askNode(p.t.Context(), p.field("listen"))
	if err != nil || n.Replication == "" {
		p.t.Fatalf("no replication ports: %v", err)
	}
	base, _, _ := strings.Cut(n.Replication, "-")
	return base
}

func (p *program) stop() {
	p.cancel()
	p.done.Wait()
	if p.code != 0 {
		p.t.Errorf("status %d\n%s", p.code, p.log.String())
	}
}

// mirror is a primary with a replica that has everything.
type mirror struct {
	primary, replica *program
	dir              string
}

func newMirror(t *testing.T, shards int) *mirror {
	m := &mirror{dir: t.TempDir()}
	m.primary = launch(t, server.RunPrimary, "--data-dir", filepath.Join(m.dir, "p"), "--shards", fmt.Sprint(shards))
	m.startReplica(t)
	return m
}

// startReplica starts a replica of m.primary, which may be a replica itself.
func (m *mirror) startReplica(t *testing.T) {
	m.replica = launch(t, server.RunReplica, "--data-dir", filepath.Join(m.dir, "r"), "--primary", m.primary.base())
	eventually.True(t, 20*time.Second, "the replica streams", func() bool {
		n, err := askNode(t.Context(), m.replica.field("listen"))
		if err != nil || !n.Ready {
			return false
		}
		for _, s := range n.Shards {
			if s.Link == nil || s.Link.State != "streaming" {
				return false
			}
		}
		return true
	})
}

func (m *mirror) verify(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return run(t, append([]string{"verify", "--primary", m.primary.field("listen"), "--replica", m.replica.field("listen")}, args...)...)
}

func (m *mirror) write(t *testing.T, commands ...[]string) {
	t.Helper()
	c, err := client.Dial(t.Context(), m.primary.field("listen"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, args := range commands {
		c.Queue(args...)
	}
	if err := c.Flush(nil); err != nil {
		t.Fatal(err)
	}
}

// writer writes to the primary until stop is called, and returns once it is at it.
func (m *mirror) writer(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c, err := client.Dial(ctx, m.primary.field("listen"))
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	var writer sync.WaitGroup
	begun := make(chan struct{})
	// The writer ends when the test is done with it: stop waits for it.
	writer.Go(func() {
		defer c.Close()
		for n := 0; ctx.Err() == nil; n++ {
			for i := range 100 {
				c.Queue("SET", fmt.Sprintf("key:%d", (n*100+i)%30_000), fmt.Sprint(n), "EX", "1000")
			}
			if c.Flush(nil) != nil {
				return
			}
			if n == 100 {
				close(begun)
			}
		}
	})
	stop = func() { cancel(); writer.Wait() }
	t.Cleanup(stop)
	select {
	case <-begun:
	case <-time.After(20 * time.Second):
		t.Fatal("the writer did not begin")
	}
	return stop
}

func startPrimary(t *testing.T, shards int) *program {
	t.Helper()
	return launch(t, server.RunPrimary, "--data-dir", filepath.Join(t.TempDir(), "p"), "--shards", fmt.Sprint(shards))
}

func (p *program) do(commands ...string) {
	p.t.Helper()
	c, err := client.Dial(p.t.Context(), p.field("listen"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Close()
	for _, args := range commands {
		c.Queue(strings.Fields(args)...)
	}
	if err := c.Flush(nil); err != nil {
		p.t.Fatal(err)
	}
}

// holds compares the whole keyspace with what it should be: a key and its value each.
func (p *program) holds(want map[string]string) {
	p.t.Helper()
	c, err := client.Dial(p.t.Context(), p.field("listen"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Close()
	n, err := c.Do("DBSIZE")
	if err != nil || n.Int != int64(len(want)) {
		p.t.Errorf("%d keys, %v, want %d", n.Int, err, len(want))
	}
	for k, value := range want {
		if v, err := c.Do("GET", k); err != nil || v.Str != value || v.IsNull() {
			p.t.Errorf("%q holds %.50q, %v, want %.50q", k, v.Str, err, value)
		}
	}
}
