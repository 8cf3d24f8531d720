package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/cli"
	respclient "github.com/understudy-kv/understudy/internal/client"
	"github.com/understudy-kv/understudy/internal/eventually"
)

// lines is an output that can be read while it is written.
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

// running is RunPrimary or RunReplica at work.
type running struct {
	t           *testing.T
	stdout, log lines
	cancel      context.CancelFunc
	code        chan int
}

// launch runs a program until the test ends or stop is called, and waits until it is ready or has ended.
func launch(t *testing.T, run func(context.Context, []string, io.Writer, io.Writer) int, args ...string) *running {
	t.Helper()
	r := &running{t: t, code: make(chan int, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	var done sync.WaitGroup
	// The program's goroutine ends when its context does; the cleanup waits for it.
	done.Go(func() { r.code <- run(ctx, args, &r.stdout, &r.log) })
	t.Cleanup(func() { cancel(); done.Wait() })
	eventually.True(t, 20*time.Second, "ready or ended", func() bool { return r.stdout.String() != "" || len(r.code) > 0 })
	return r
}

// ready takes the fields of the ready line apart.
func (r *running) ready() map[string]string {
	r.t.Helper()
	fields := map[string]string{}
	for _, f := range strings.Fields(r.stdout.String()) {
		name, value, _ := strings.Cut(f, "=")
		fields[name] = value
	}
	if fields["listen"] == "" {
		r.t.Fatalf("not ready: %q\n%s", r.stdout.String(), r.log.String())
	}
	return fields
}

func (r *running) stop() int {
	r.cancel()
	return <-r.code
}

func (r *running) do(args ...string) string {
	r.t.Helper()
	c, err := respclient.Dial(r.t.Context(), r.ready()["listen"])
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	c.SetTimeout(20 * time.Second)
	v, err := c.Do(args...)
	if err != nil {
		return err.Error()
	}
	if len(v.Elems) == 2 {
		return v.Elems[1].Str
	}
	return fmt.Sprint(v.Str, v.Int)
}

func small(dir, listen string, more ...string) []string {
	return append([]string{"--data-dir", dir, "--listen", listen, "--backlog-memory", "1MiB", "--backlog-keep", "1MiB", "--memory", "32MiB"}, more...)
}

func TestTwoProgramsMirrorAndStopCleanly(t *testing.T) {
	dir := t.TempDir()
	p := launch(t, RunPrimary, small(filepath.Join(dir, "p"), "127.0.0.1:0", "--shards", "2")...)
	if line := p.stdout.String(); !regexp.MustCompile(`^ready role=primary listen=127\.0\.0\.1:\d+ replication=127\.0\.0\.1:\d+-\d+ shards=2\n$`).MatchString(line) {
		t.Fatalf("ready line %q\n%s", line, p.log.String())
	}
	base, _, _ := strings.Cut(p.ready()["replication"], "-")
	r := launch(t, RunReplica, small(filepath.Join(dir, "r"), "127.0.0.1:0", "--primary", base)...)
	if line := r.stdout.String(); !regexp.MustCompile(`^ready role=replica listen=127\.0\.0\.1:\d+ (replication=127\.0\.0\.1:\d+(-\d+)? )?primary=` + regexp.QuoteMeta(base) + ` shards=\d\n$`).MatchString(line) {
		t.Fatalf("ready line %q\n%s", line, r.log.String())
	}
	if got := p.do("SET", "k", "v"); got != "OK0" {
		t.Fatal(got)
	}
	eventually.True(t, 20*time.Second, "the write is at the replica", func() bool { return r.do("GET", "k") == "v0" })
	c, err := respclient.Dial(t.Context(), p.ready()["listen"])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Do("SET", "k", "w"); err != nil {
		t.Fatal(err)
	}
	if v, err := c.Do("WAIT", "1", "10000"); err != nil || v.Int != 1 {
		t.Errorf("WAIT: %d, %v", v.Int, err)
	}
	if got := r.do("SET", "k", "v"); !strings.Contains(got, "READONLY") {
		t.Errorf("a write to the replica: %s", got)
	}
	id := r.do("CONFIG", "GET", "replica-id")
	for _, x := range []struct {
		on   *running
		args []string
		want string
	}{
		{p, []string{"REPL.SLOT", "DROP", id}, "attached"},
		{p, []string{"REPL.SLOT", "DROP", "123e4567-e89b-12d3-a456-426614174000"}, "no slot of replica 123e4567"},
		{p, []string{"REPL.SLOT", "DROP", "me"}, "not a UUID"},
		{r, []string{"REPL.SLOT", "DROP", id}, "REPL.SLOTS lists them"},
		{p, []string{"CONFIG", "SET", "reconnect-window", "90s"}, "OK"},
		{p, []string{"CONFIG", "GET", "reconnect-window"}, "1m30s"},
		{p, []string{"CONFIG", "GET", "max-replicas"}, "64"},
		{p, []string{"CONFIG", "SET", "backlog-disk", "4mb"}, "OK"},
		{p, []string{"CONFIG", "GET", "backlog-disk"}, "4194304"},
		{p, []string{"CONFIG", "SET", "backlog-disk", "1kb"}, "CONFIG SET failed"},
		{p, []string{"CONFIG", "SET", "backlog-disk", "much"}, "not a size"},
		{p, []string{"CONFIG", "SET", "reconnect-window", "soon"}, "must be a duration"},
		{r, []string{"CONFIG", "SET", "log-level", "debug"}, "OK"},
		{r, []string{"CONFIG", "GET", "log-level"}, "debug"},
		{r, []string{"CONFIG", "SET", "log-level", "loud"}, "must be one of the following: trace"},
		{r, []string{"CONFIG", "SET", "memory", "1"}, "immutable"},
	} {
		if got := x.on.do(x.args...); !strings.Contains(got, x.want) {
			t.Errorf("%v: %q, want %q", x.args, got, x.want)
		}
	}

	taken := launch(t, RunPrimary, small(filepath.Join(dir, "p"), "127.0.0.1:0")...)
	if code := <-taken.code; code != cli.Failed || !strings.Contains(taken.log.String(), filepath.Join(dir, "p")+" is in use by process") {
		t.Errorf("a second process: status %d\n%s", code, taken.log.String())
	}
	if code := r.stop(); code != cli.Clean {
		t.Errorf("the replica's status is %d\n%s", code, r.log.String())
	}
	if _, err := c.Do("SHUTDOWN"); err == nil {
		t.Error("SHUTDOWN was answered")
	}
	if code := <-p.code; code != cli.Clean || !strings.Contains(p.log.String(), "SHUTDOWN from 127.0.0.1") {
		t.Errorf("the primary's status is %d\n%s", code, p.log.String())
	}
	again := launch(t, RunPrimary, small(filepath.Join(dir, "p"), "127.0.0.1:0")...)
	if got := again.ready()["shards"]; got != "2" {
		t.Errorf("without --shards a directory with 2 is opened with %s", got)
	}
	if got := again.do("GET", "k"); got != "w0" {
		t.Errorf("after a restart: %q", got)
	}
	if code := again.stop(); code != cli.Clean {
		t.Errorf("status %d", code)
	}
}

func TestStartsThatFailSayWhy(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().String()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2)) // as many shards where nothing else is said
	for _, c := range []struct {
		run  func(context.Context, []string, io.Writer, io.Writer) int
		args []string
		want string
	}{
		{RunPrimary, small(t.TempDir(), taken, "--replication-port-base", "20000"), "--listen: listen tcp " + taken + ": bind: address already in use"},
		{RunReplica, small(t.TempDir(), taken, "--primary", "127.0.0.1:1"), "--listen: listen tcp " + taken},
		{RunPrimary, small("/dev/null/x", "127.0.0.1:0"), "/dev/null"},
		{RunPrimary, small(t.TempDir(), "127.0.0.1:0", "--replication-port-base", taken[len("127.0.0.1:"):], "--shards", "1"), "address already in use"},
		{RunPrimary, small(t.TempDir(), "127.0.0.1:0", "--replication-port-base", "65535"), "65535-65536"},
	} {
		r := launch(t, c.run, c.args...)
		if code := <-r.code; code != cli.Failed || !strings.Contains(r.log.String(), "cannot start: ") || !strings.Contains(r.log.String(), c.want) {
			t.Errorf("%v: status %d\n%s\nwant %q", c.args, code, r.log.String(), c.want)
		}
		if r.stdout.String() != "" {
			t.Errorf("%v: standard output %q", c.args, r.stdout.String())
		}
	}
}
