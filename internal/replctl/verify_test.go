package replctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/understudy-kv/understudy/internal/client"
	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/eventually"
)

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
	rounds := 5
	if testing.Short() {
		rounds = 2
	}
	for range rounds {
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
