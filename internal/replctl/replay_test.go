package replctl

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/understudy-kv/understudy/internal/client"
	"github.com/understudy-kv/understudy/internal/status"
)

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

// A reply that refuses ends it, names the command and where it comes from, and tells how far it came.
func TestReplayChecksEveryReply(t *testing.T) {
	dir, _ := twoShards(t)
	addr := serveWith(t, status.Node{Role: "primary"}, map[string]string{"SET": "+OK", "DEL": "-READONLY You can't write against a read only replica."})
	code, stdout, stderr := run(t, "surplus", "replay", "--data-dir", dir, "--to", addr)
	if code != 1 || !strings.Contains(stderr, addr+": DEL over of shard 0, offset 13: READONLY You can't write") || !strings.Contains(stderr, "what was sent may be sent again") {
		t.Errorf("status %d, %s", code, stderr)
	}
	if !strings.HasPrefix(stdout, "# 6 SET and 0 DEL sent to ") {
		t.Errorf("%q does not tell how far it came", stdout)
	}
}
