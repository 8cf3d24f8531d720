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
	"github.com/understudy-kv/understudy/internal/eventually"
	"github.com/understudy-kv/understudy/internal/server"
)

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
