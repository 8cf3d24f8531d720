package replctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/understudy-kv/understudy/internal/client"
	"github.com/understudy-kv/understudy/internal/engine"
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

// tamper changes the replica's data behind the system's back, while the replica is stopped. The position stays.
func (m *mirror) tamper(t *testing.T, shard int, change func(b *pebble.Batch) error) {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(m.dir, "r", "data-*", fmt.Sprintf("shard-%03d", shard), "engine-*"))
	if err != nil || len(dirs) != 1 {
		t.Fatalf("%v, %v", dirs, err)
	}
	db, err := pebble.Open(dirs[0], &pebble.Options{FormatMajorVersion: pebble.FormatMajorVersion(engine.Format & 0xffff), Logger: silent{}})
	if err != nil {
		t.Fatal(err)
	}
	b := db.NewBatch()
	if err := errors.Join(change(b), b.Commit(pebble.Sync), db.Flush(), db.Close()); err != nil {
		t.Fatal(err)
	}
}

type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(string, ...any) {}

func TestVerifyUnderWritesFindsNoDifference(t *testing.T) {
	m := newMirror(t, 2)
	stop := m.writer(t)
	for range 3 {
		code, stdout, stderr := m.verify(t)
		if code != 0 || stderr != "" || !strings.Contains(stdout, "identical: yes, 2 shards") {
			t.Errorf("status %d\n%s%s", code, stdout, stderr)
		}
	}
	stop()
}

// Two replicas of one primary are compared at a position of both, whichever is ahead.
func TestVerifyOfTwoReplicas(t *testing.T) {
	m := newMirror(t, 2)
	beside := mirror{primary: m.primary, dir: t.TempDir()}
	beside.startReplica(t)
	stop := m.writer(t)
	a, b := m.replica.field("listen"), beside.replica.field("listen")
	for range 5 {
		for _, pair := range [][]string{{a, b}, {b, a}} {
			code, stdout, stderr := run(t, "verify", "--primary", pair[0], "--replica", pair[1])
			if code != 0 || stderr != "" || !strings.Contains(stdout, "identical: yes, 2 shards") {
				t.Errorf("status %d\n%s%s", code, stdout, stderr)
			}
		}
	}
	stop()
	code, _, stderr := run(t, "verify", "--primary", a, "--replica", a)
	if code != 1 || !strings.Contains(stderr, "are one node") {
		t.Errorf("status %d, %q", code, stderr)
	}
}

// A chain of three: each is compared with each that it follows, also over one between.
func TestVerifyOfAChain(t *testing.T) {
	m := newMirror(t, 2)
	last := mirror{primary: m.replica, dir: t.TempDir()}
	last.startReplica(t)
	stop := m.writer(t)
	a, b, c := m.primary.field("listen"), m.replica.field("listen"), last.replica.field("listen")
	for _, pair := range [][]string{{a, c}, {b, c}, {c, b}, {a, b}} {
		code, stdout, stderr := run(t, "verify", "--primary", pair[0], "--replica", pair[1])
		if code != 0 || stderr != "" || !strings.Contains(stdout, "identical: yes, 2 shards") {
			t.Errorf("status %d\n%s%s", code, stdout, stderr)
		}
	}
	stop()
	code, stdout, stderr := run(t, "status", "--primary", b, "--replica", c)
	if code != 0 || strings.Count(stdout, " streaming ") != 4 || strings.Count(stdout, " online ") != 2 || strings.Count(stdout, "  chain: ") != 2 {
		t.Errorf("status %d\n%s%s", code, stdout, stderr)
	}
}

func TestVerifyNamesTheKeysThatDiffer(t *testing.T) {
	m := newMirror(t, 1)
	var commands [][]string
	for i := range 20_000 {
		commands = append(commands, []string{"SET", fmt.Sprintf("key:%05d", i), "value"})
	}
	m.write(t, commands...)
	m.write(t, []string{"SET", "expiring", "value", "PXAT", "4000000000000"})
	if code, stdout, stderr := m.verify(t); code != 0 {
		t.Fatalf("status %d\n%s%s", code, stdout, stderr)
	}
	m.replica.stop()
	key := func(s string) []byte { return engine.AppendDataKey(nil, []byte(s)) }
	record := func(s string) []byte {
		return engine.AppendRecord(nil, engine.Record{Type: engine.TypeString, Value: []byte(s)})
	}
	m.tamper(t, 0, func(b *pebble.Batch) error {
		return errors.Join(
			b.Delete(key("key:00017"), nil),
			b.Set(key("key:10000"), record("other"), nil),
			b.Set(key("surplus\x00"), record("value"), nil),
			b.Delete(engine.AppendIndexKey(nil, 4_000_000_000_000, []byte("expiring")), nil),
		)
	})
	m.startReplica(t)
	code, stdout, _ := m.verify(t)
	if code != 1 {
		t.Errorf("status %d, want 1", code)
	}
	for _, want := range []string{
		`shard 0: key "key:00017": record: only at the primary`,
		`shard 0: key "key:10000": record: different`,
		`shard 0: key "surplus\x00": record: only at the replica`,
		`shard 0: key "expiring": expiry at 2096-10-02T07:06:40.000Z: only at the primary`,
		"identical: NO, 4 of 20002 entries differ",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("does not say %q:\n%s", want, stdout)
		}
	}
	beside := mirror{primary: m.primary, dir: t.TempDir()}
	beside.startReplica(t)
	code, stdout, stderr := run(t, "verify", "--primary", beside.replica.field("listen"), "--replica", m.replica.field("listen"))
	if want := `key "surplus\x00": record: only at ` + m.replica.field("listen"); code != 1 || !strings.Contains(stdout, want) {
		t.Errorf("status %d, does not say %q:\n%s%s", code, want, stdout, stderr)
	}
	code, stdout, _ = m.verify(t, "--json", "--keys", "2")
	var v Verification
	if err := json.Unmarshal([]byte(stdout), &v); err != nil || code != 1 || v.Identical || v.Differing != 4 || len(v.Differences) != 2 {
		t.Errorf("status %d, %v: %s", code, err, stdout)
	}
}

// Waiting would not help, so it is not waited for: the test's own limit is shorter than --wait.
func TestVerifyOfStrangersFailsAtOnce(t *testing.T) {
	m := newMirror(t, 1)
	m.write(t, []string{"SET", "k", "v"})
	other := newMirror(t, 1)
	for _, first := range []string{m.primary.field("listen"), m.replica.field("listen")} {
		second := other.replica.field("listen")
		code, _, stderr := run(t, "verify", "--primary", first, "--replica", second, "--wait", "10h")
		if code != 1 || !strings.Contains(stderr, "not verified: shard 0: ") || !strings.Contains(stderr, "share no history") ||
			!strings.Contains(stderr, first+" at ") || !strings.Contains(stderr, second+" at ") {
			t.Errorf("status %d, %q", code, stderr)
		}
	}
	// A hold that verify left behind would show in the replica's being stuck.
	other.write(t, []string{"SET", "k", "v"})
	c, err := client.Dial(t.Context(), other.replica.field("listen"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	eventually.True(t, 20*time.Second, "the other replica goes on", func() bool {
		v, err := c.Do("GET", "k")
		return err == nil && v.Str == "v"
	})
}

func TestStatusOfRealNodes(t *testing.T) {
	m := newMirror(t, 2)
	m.write(t, []string{"SET", "k", "v"})
	code, stdout, stderr := run(t, "status", "--primary", m.primary.field("listen"), "--replica", m.replica.field("listen"))
	if code != 0 || strings.Count(stdout, " online ") != 2 || strings.Count(stdout, " streaming ") != 2 {
		t.Errorf("status %d\n%s%s", code, stdout, stderr)
	}
	code, stdout, stderr = run(t, "log", filepath.Join(m.dir, "r"))
	if code != 0 || !strings.Contains(stdout, `put "k" string of 1 bytes "v"`) {
		t.Errorf("log of a live replica: status %d\n%s%s", code, stdout, stderr)
	}
	if code, stdout, stderr = run(t, "log", filepath.Join(m.dir, "p"), "--shard", "5"); code != 1 || !strings.Contains(stderr, "has no shard 5; it has 2 shards") {
		t.Errorf("status %d\n%s%s", code, stdout, stderr)
	}
	if code, stdout, stderr = run(t, "log", filepath.Join(m.dir, "p"), "--check", "--shard", "1"); code != 0 || strings.Count(stdout, "shard 1: offsets [0, ") != 1 {
		t.Errorf("status %d\n%s%s", code, stdout, stderr)
	}
}
