package replctl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/internal/client"
	"github.com/understudy-kv/understudy/internal/eventually"
	"github.com/understudy-kv/understudy/internal/server"
)

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

// after is what the surplus of twoShards leaves behind in an empty keyspace.
func after() map[string]string {
	return map[string]string{
		"greeting": "hello \"world\"\r\n", "session": "in", "one": "1", "two": "2", "binary\xff\x00": "\x00\x01é", "long": strings.Repeat("long ", 2000),
	}
}

// The last state of each key arrives, once or again and again, and what cannot be sent is told.
func TestReplaySendsTheLastOfEachKey(t *testing.T) {
	dir, _ := twoShards(t)
	p := startPrimary(t, 2)
	p.do("SET three there", "SET over there", "SET one other", "SET gone there", "SET flushed before", "SET untouched there", "SET two 2")
	want := after()
	want["flushed"], want["untouched"] = "before", "there"
	for range 2 {
		code, stdout, stderr := run(t, "surplus", "replay", "--data-dir", dir, "--to", p.field("listen"))
		if code != 1 || stdout != fmt.Sprintf("# 6 SET and 3 DEL (1 of keys that expired meanwhile) sent to %s\n", p.field("listen")) {
			t.Errorf("status %d, %s", code, stdout)
		}
		for _, text := range []string{
			"1 shards have a mutation that deletes everything (FLUSHALL), such as at offset 21: it was left out", "1 operations are none that a command brings about",
		} {
			if !strings.Contains(stderr, text) {
				t.Errorf("%q does not say %q", stderr, text)
			}
		}
		p.holds(want)
	}
	c, err := client.Dial(t.Context(), p.field("listen"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if v, err := c.Do("PEXPIRETIME", "session"); err != nil || v.Int != future {
		t.Errorf("session expires at %d, %v, want %d", v.Int, err, int64(future))
	}
}

func TestReplayDryRunSendsNothing(t *testing.T) {
	dir, _ := twoShards(t)
	p := startPrimary(t, 3)
	p.do("SET three there", "SET over there PXAT 4100000000000", "SET one other", "SET two 2", "SET session in")
	for name, args := range map[string][]string{"replay_dry.txt": nil, "replay_dry_all.txt": {"--all", "--allow-flush"}} {
		code, stdout, _ := run(t, append([]string{"surplus", "replay", "--data-dir", dir, "--to", p.field("listen"), "--dry-run"}, args...)...)
		if code != 1 {
			t.Errorf("status %d", code)
		}
		golden(t, name, strings.ReplaceAll(stdout, p.field("listen"), "TARGET"))
	}
	p.holds(map[string]string{"three": "there", "over": "there", "one": "other", "two": "2", "session": "in"})
}

func TestReplayChoosesShardsAndKeys(t *testing.T) {
	dir, files := twoShards(t)
	p := startPrimary(t, 1)
	code, stdout, stderr := run(t, "surplus", "replay", "--data-dir", dir, "--shard", "0", "--key", "[ot]*", "--to", p.field("listen"))
	if code != 0 || stderr != "" || !strings.Contains(stdout, "# 2 SET and 2 DEL") {
		t.Errorf("status %d, %s%s", code, stdout, stderr)
	}
	p.holds(map[string]string{"one": "1", "two": "2"})
	code, stdout, _ = run(t, "surplus", "replay", files[1], "--key", "l*", "--all", "--to", p.field("listen"))
	if code != 1 || !strings.Contains(stdout, "# 1 SET and 0 DEL sent") {
		t.Errorf("status %d, %s", code, stdout)
	}
	p.holds(map[string]string{"one": "1", "two": "2", "long": after()["long"]})
}

// A flush is sent only on request, once, and before what followed it on any shard.
func TestReplayFlushesOnRequest(t *testing.T) {
	dir := t.TempDir()
	for shard := range 2 {
		s := newShardLog(t, shard, 0)
		key := fmt.Sprintf("key:%d", shard)
		s.write(putKey("before:"+key, "v", 0), flushShard, putKey(key, "v", 0), flushShard, putKey(key, "w", 0), putKey(key, "x", 0))
		s.save(dir, 0)
	}
	p := startPrimary(t, 2)
	p.do("SET there v")
	for _, all := range []string{"--all", "--all=false"} {
		code, _, stderr := run(t, "surplus", "replay", "--data-dir", dir, "--to", p.field("listen"), all)
		if code != 1 || !strings.Contains(stderr, "2 shards have a mutation that deletes everything") {
			t.Errorf("status %d, %s", code, stderr)
		}
		p.holds(map[string]string{"there": "v", "key:0": "x", "key:1": "x"})
	}
	for all, sets := range map[string]int{"--all": 4, "--all=false": 2} {
		p.do("SET there v")
		code, stdout, stderr := run(t, "surplus", "replay", "--data-dir", dir, "--to", p.field("listen"), "--allow-flush", all)
		if code != 0 || stderr != "" || !strings.Contains(stdout, fmt.Sprintf("# FLUSHALL, %d SET and 0 DEL sent", sets)) {
			t.Errorf("status %d, %s%s", code, stdout, stderr)
		}
		p.holds(map[string]string{"key:0": "x", "key:1": "x"})
	}
}

// Two files of one shard: what was committed later wins, whatever the offsets say.
func TestReplayTakesFilesInTheOrderOfTheirCommits(t *testing.T) {
	dir := t.TempDir()
	old := newShardLog(t, 0, 500)
	old.write(putKey("k", "old", 0), putKey("only-old", "v", 0))
	old.save(dir, 500)
	late := newShardLog(t, 0, 20)
	late.generation[1], late.commit = 7, old.commit
	late.write(putKey("k", "late", 0))
	late.save(dir, 20)
	p := startPrimary(t, 1)
	if code, stdout, stderr := run(t, "surplus", "replay", "--data-dir", dir, "--to", p.field("listen")); code != 0 {
		t.Errorf("status %d, %s%s", code, stdout, stderr)
	}
	p.holds(map[string]string{"k": "late", "only-old": "v"})
}

// A damaged file is sent as far as it is whole, on request.
func TestReplayOfADamagedFile(t *testing.T) {
	dir, files := twoShards(t)
	b, err := os.ReadFile(files[0])
	if err == nil {
		err = os.WriteFile(files[0], b[:len(b)-5], 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	p := startPrimary(t, 1)
	code, stdout, stderr := run(t, "surplus", "replay", "--data-dir", dir, "--shard", "0", "--to", p.field("listen"), "--partial")
	if code != 1 || !strings.Contains(stdout, "# 4 SET and 2 DEL") || !strings.Contains(stderr, files[0]+" is cut off at byte") {
		t.Errorf("status %d, %s%s", code, stdout, stderr)
	}
	want := after()
	delete(want, "long")
	delete(want, "binary\xff\x00")
	p.holds(want)
}

func TestReplayRefusesWhatIsNoPrimary(t *testing.T) {
	dir, _ := twoShards(t)
	m := newMirror(t, 1)
	for addr, want := range map[string]string{
		m.replica.field("listen"): m.replica.field("listen") + " is a replica",
		"127.0.0.1:1":             "connection refused; nothing was sent",
	} {
		for _, dry := range []string{"--dry-run", "--dry-run=false"} {
			code, stdout, stderr := run(t, "surplus", "replay", "--data-dir", dir, "--to", addr, dry)
			if code != 1 || stdout != "" || !strings.Contains(stderr, want) || !strings.Contains(stderr, "nothing was sent") {
				t.Errorf("%s: status %d, %q, %q", addr, code, stdout, stderr)
			}
		}
	}
	m.primary.holds(nil)
}

// The surplus of a real node: all that its shards' logs have, sent to another node, makes the two alike.
func TestReplayOfARealNodesLog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	p := launch(t, server.RunPrimary, "--data-dir", dir, "--shards", "4")
	want := map[string]string{}
	var commands []string
	for i := range 3000 {
		k := fmt.Sprintf("key:%d", i%700)
		switch i % 11 {
		case 0:
			commands = append(commands, "DEL "+k)
			delete(want, k)
		case 1:
			commands = append(commands, "SET "+k+" v EX 10000", "PERSIST "+k, "APPEND "+k+" w")
			want[k] = "vw"
		default:
			commands = append(commands, fmt.Sprintf("SET %s %d EX 10000", k, i))
			want[k] = fmt.Sprint(i)
		}
	}
	p.do(append(commands, "MSET a 1 b 2 c 3 d 4", "RENAME a e", "INCR b", "SET short lived PX 1", "SET big "+strings.Repeat("x", 3<<20))...)
	want["b"], want["c"], want["d"], want["e"], want["big"] = "3", "3", "4", "1", strings.Repeat("x", 3<<20)
	p.stop()
	logs, err := findLogs(dir, nil)
	if err != nil || len(logs) != 4 {
		t.Fatalf("%d logs, %v", len(logs), err)
	}
	for _, l := range logs {
		in, err := inspect(l)
		if err != nil || in.Corrupt != nil {
			t.Fatal(err, in.Corrupt)
		}
		var frames bytes.Buffer
		for _, s := range in.Segments {
			b, err := os.ReadFile(vfs.Default.PathJoin(s.Path))
			if err != nil {
				t.Fatal(err)
			}
			frames.Write(b[backlog.SegmentHeaderSize:s.Good])
		}
		saveSurplus(t, dir, l.shard, in.Segments[0].Header.Generation, in.Segments[0].Header.First, in.Next, frames.Bytes())
	}
	for _, all := range []string{"--all", "--all=false"} {
		to := startPrimary(t, 3)
		to.do("SET a there", "SET key:0 there")
		if code, stdout, stderr := run(t, "surplus", "replay", "--data-dir", dir, "--to", to.field("listen"), all); code != 0 {
			t.Errorf("%s: status %d, %s%s", all, code, stdout, stderr)
		}
		to.holds(want)
		to.stop()
	}
}

// The whole story: a replica is promoted while its primary goes on alone. What the old primary has alone is saved when it
// follows the new one, is listed and shown, and comes back by replay; then both have all of it.
func TestSurplusOfANodeThatWasLeftBehind(t *testing.T) {
	m := newMirror(t, 2)
	a, b := m.primary, m.replica
	var both, alone []string
	want := map[string]string{}
	for i := range 100 {
		k := fmt.Sprintf("key:%d", i)
		both, want[k] = append(both, "SET "+k+" v"), "v"
		if i < 30 {
			alone, want[k] = append(alone, "SET "+k+" alone"), "alone"
		}
	}
	a.do(both...)
	if code, stdout, stderr := m.verify(t); code != 0 {
		t.Fatalf("status %d\n%s%s", code, stdout, stderr)
	}
	b.do("REPLICAOF NO ONE", "SET new v")
	a.do(append(alone, "DEL key:99")...)
	want["new"] = "v"
	delete(want, "key:99")
	host, port, _ := strings.Cut(b.base(), ":")
	a.do("REPLICAOF " + host + " " + port)
	follows := func() bool {
		n, err := askNode(t.Context(), a.field("listen"))
		if err != nil || n.Role != "replica" || !n.Ready {
			return false
		}
		for _, s := range n.Shards {
			if s.Link == nil || s.Link.State != "streaming" || s.Unsettled {
				return false
			}
		}
		return true
	}
	eventually.True(t, 20*time.Second, "the old primary follows the new one", follows)
	dir := filepath.Join(m.dir, "p")
	code, stdout, stderr := run(t, "surplus", "list", "--data-dir", dir, "--json")
	mutations := uint64(0)
	for d := json.NewDecoder(strings.NewReader(stdout)); d.More(); {
		var s surplusSummary
		if err := d.Decode(&s); err != nil {
			t.Fatal(err)
		}
		mutations += s.Mutations
	}
	if code != 0 || mutations != 31 {
		t.Errorf("status %d, %d mutations, want 31: %s%s", code, mutations, stdout, stderr)
	}
	code, stdout, stderr = run(t, "surplus", "show", "--data-dir", dir)
	if code != 0 || strings.Count(stdout, " alone\n") != 30 || !strings.Contains(stdout, "\nDEL key:99\n") {
		t.Errorf("status %d, %s%s", code, stdout, stderr)
	}
	code, stdout, stderr = run(t, "surplus", "replay", "--data-dir", dir, "--to", a.field("listen"))
	if code != 1 || !strings.Contains(stderr, "is a replica, which follows "+b.base()+": give the address of the primary; nothing was sent") {
		t.Errorf("status %d, %s%s", code, stdout, stderr)
	}
	code, stdout, stderr = run(t, "surplus", "replay", "--data-dir", dir, "--to", b.field("listen"))
	if code != 0 || stderr != "" || !strings.Contains(stdout, "# 30 SET and 1 DEL sent") {
		t.Errorf("status %d, %s%s", code, stdout, stderr)
	}
	b.holds(want)
	code, stdout, stderr = run(t, "verify", "--primary", b.field("listen"), "--replica", a.field("listen"))
	if code != 0 || !strings.Contains(stdout, "identical: yes, 2 shards") {
		t.Errorf("status %d\n%s%s", code, stdout, stderr)
	}
}
