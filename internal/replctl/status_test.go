package replctl

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/understudy-kv/understudy/internal/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var rewrite = flag.Bool("rewrite", false, "rewrite the expected outputs in testdata")

// golden compares with a file in testdata, or rewrites it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s\nrun the test with -rewrite if that is right", name, got, want)
	}
}

// serve answers REPL.STATUS with the node until the test ends.
func serve(t *testing.T, n status.Node) string { return serveWith(t, n, nil) }

// serveWith is serve that also gives the replies to other commands, by their names.
func serveWith(t *testing.T, n status.Node, replies map[string]string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	// serve starts an accept loop, and that a goroutine a connection; they end with the listener and the connections, and
	// the cleanup waits for them.
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				for s := bufio.NewScanner(c); s.Scan(); {
					if s.Text() == "REPL.STATUS" {
						fmt.Fprintf(c, "$%d\r\n%s\r\n", len(body), body)
					} else if reply := replies[s.Text()]; reply != "" {
						fmt.Fprintf(c, "%s\r\n", reply)
					}
				}
				c.Close()
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var o, e bytes.Buffer
	code = Run(t.Context(), args, &o, &e)
	return code, o.String(), e.String()
}

func primaryNode() status.Node {
	backlog := status.Log{Oldest: 1000, Bytes: 130 << 20, Seconds: 95.2, WriteRate: 1.4 * (1 << 20)}
	idle := backlog
	idle.Seconds, idle.WriteRate = -1, 0
	slot := func(id, state string, lag uint64, bytes int64, left float64) status.Slot {
		return status.Slot{Replica: id, State: state, LagMutations: lag, LagBytes: bytes, SecondsLeft: left, ReapedIn: -1}
	}
	away := slot("bbbbbbbb-0000-4000-8000-000000000000", "detached", 91_000, 9<<20, 640)
	away.DetachedFor, away.ReapedIn = 12.34, 47.66
	syncing := slot("bbbbbbbb-0000-4000-8000-000000000000", "syncing", 5, 600, 900)
	syncing.Sync = &status.Sync{Bytes: 30 << 20, Total: 120 << 20, ETA: 7}
	const good = "aaaaaaaa-0000-4000-8000-000000000000"
	return status.Node{
		Role: "primary", Version: "1.2.3", Uptime: 3723, Replication: "127.0.0.1:16380-16383", Ready: true,
		Shards: []status.Shard{
			{Shard: 0, Offset: 5_000_000, Log: backlog, Slots: []status.Slot{slot(good, "online", 3, 210, 810), syncing}},
			{Shard: 1, Offset: 5_100_000, Log: backlog, Slots: []status.Slot{slot(good, "online", 12, 990, 790), away}},
			{Shard: 2, Offset: 4_900_000, Log: idle},
			{Shard: 3, Offset: 7, Log: idle, Error: "log: no space left on device"},
		},
	}
}

func replicaNode() status.Node {
	link := func(state string, lag uint64, bytes int64, ms float64) *status.Link {
		return &status.Link{State: state, PrimaryOffset: 5_000_000, Durable: 4_900_000, LagMutations: lag, LagBytes: bytes, LagMillis: ms, LastResync: "resume"}
	}
	down := link("backoff", 91_000, 9<<20, 12_400)
	down.DownFor, down.Stale, down.LastError = 12.4, true, "dial tcp 127.0.0.1:16381: connection refused"
	refused := link("backoff", 0, 0, 700)
	refused.DownFor, refused.Stale, refused.LastRefusal = 0.7, true, "slot-taken: held by 127.0.0.1:5555"
	syncing := link("syncing", 0, 0, 0)
	syncing.Sync, syncing.LastResync = &status.Sync{Bytes: 1 << 20, Total: 4 << 20, ETA: -1}, "fullsync:evicted"
	return status.Node{
		Role: "replica", Version: "1.2.3", Uptime: 59.5, Primary: "127.0.0.1:16380", Replica: "aaaaaaaa-0000-4000-8000-000000000000",
		Shards: []status.Shard{
			{Shard: 0, Offset: 4_999_997, Link: link("streaming", 3, 210, 1.25)},
			{Shard: 1, Offset: 4_909_000, Link: down},
			{Shard: 2, Offset: 5_000_000, Link: link("streaming", 0, 0, 0)},
			{Shard: 3, Offset: 5_000_000, Link: refused},
			{Shard: 4, Offset: 0, Link: syncing},
			{Shard: 5, Offset: 17, Link: link("streaming", 1, 1, 1), Error: "apply: no space left on device"},
		},
	}
}

// Pitfall 36: the worst shard is what a person sees first, not a sum that hides it.
func TestStatusShowsTheWorstFirst(t *testing.T) {
	p, r := serve(t, primaryNode()), serve(t, replicaNode())
	code, stdout, stderr := run(t, "status", "--primary", p, "--replica", r)
	stdout = strings.NewReplacer(p, "PRIMARY", r, "REPLICA").Replace(stdout)
	golden(t, "status.txt", stdout)
	if code != 1 || !strings.Contains(stderr, "primary "+p+": shard 3: log: no space left on device") || !strings.Contains(stderr, "replica "+r+": shard 5: apply:") {
		t.Errorf("status %d, %q: want 1 and the shards' errors", code, stderr)
	}
}

// chainedNode follows a replica and is followed by one: a chain of four.
func chainedNode() status.Node {
	n := replicaNode()
	n.ID = "cccccccc-0000-4000-8000-000000000000"
	n.Ready, n.Replication = true, "127.0.0.1:17380-17382"
	n.Path = []string{"11111111-0000-4000-8000-000000000000", "22222222-0000-4000-8000-000000000000", n.ID}
	n.Failover = &status.Failover{State: status.FailoverNone, Target: "127.0.0.1:18380", Hold: 10_000, Result: "timed out: all is as before"}
	n.Shards = n.Shards[:3]
	slots := primaryNode().Shards
	for i := range n.Shards {
		n.Shards[i].Log, n.Shards[i].Slots = slots[i].Log, slots[i].Slots
	}
	unsettled := *n.Shards[2].Link
	unsettled.LastResync = "rewind"
	n.Shards[2].Link, n.Shards[2].Unsettled, n.Shards[2].Rewinds = &unsettled, true, 2
	return n
}

// A node that follows and serves shows both sides of it, the worst first on each, and is in order above its own replica.
func TestStatusOfAChain(t *testing.T) {
	above, below := chainedNode(), replicaNode()
	below.ID = "dddddddd-0000-4000-8000-000000000000"
	below.Path = append(append([]string(nil), above.Path...), below.ID)
	below.Shards = below.Shards[2:3]
	below.Failover = &status.Failover{State: status.FailoverWaiting, Target: "127.0.0.1:19380", Hold: 12.5}
	a, b := serve(t, above), serve(t, below)
	code, stdout, stderr := run(t, "status", "--primary", a, "--replica", b)
	golden(t, "status_chain.txt", strings.NewReplacer(a, "ABOVE", b, "BELOW").Replace(stdout))
	if code != 0 || stderr != "" {
		t.Errorf("status %d, %q", code, stderr)
	}
	// The wrong way round it is in no order.
	for _, args := range [][]string{{"--primary", b, "--replica", a}, {"--primary", a}, {"--primary", a, "--replica", a}} {
		if code, _, stderr := run(t, append([]string{"status"}, args...)...); code != 1 || !strings.Contains(stderr, "it is a replica; swap the two addresses") {
			t.Errorf("%v: status %d, %q", args, code, stderr)
		}
	}
}

func TestStatusOfGoodNodesIsStatus0(t *testing.T) {
	n := primaryNode()
	n.Shards = n.Shards[:3]
	if code, stdout, stderr := run(t, "status", "--primary", serve(t, n)); code != 0 || stderr != "" || strings.Contains(stdout, "replica 127") {
		t.Errorf("status %d, %q, %q", code, stdout, stderr)
	}
}

func TestStatusJSON(t *testing.T) {
	p := serve(t, primaryNode())
	code, stdout, _ := run(t, "status", "--json", "--primary", p, "--replica", "127.0.0.1:1")
	var r report
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || r.Primary.Node.Shards[1].Slots[1].LagMutations != 91_000 {
		t.Fatalf("%v in %s", err, stdout)
	}
	if code != 1 || r.Replica.Node != nil || !strings.Contains(r.Replica.Error, "refused") {
		t.Errorf("status %d, a replica that is not there: %+v", code, r.Replica)
	}
}

func TestFailuresSayWhichNodeAndWhy(t *testing.T) {
	p := serve(t, primaryNode())
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"status", 2, "give --primary, --replica or both"},
		{"status --primary 127.0.0.1:1", 1, "primary 127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused"},
		{"status --replica " + p, 1, "it is a primary; swap the two addresses"},
		{"", 2, "status"},
		{"log", 2, "<dir>"},
		{"log /no/such/directory", 1, "/no/such/directory"},
		{"log .", 1, ". holds no log; give the data directory of a node"},
		{"log run.go", 1, "run.go is a file"},
		{"verify --primary x:1", 2, "--replica"},
		{"verify --primary 127.0.0.1:1 --replica x:1", 1, "not verified: primary: dial tcp"},
		{"verify --primary " + p + " --replica " + p, 1, "is a primary, not a replica"},
		{"nonsense", 2, "nonsense"},
	} {
		code, _, stderr := run(t, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: status %d, %q, want %d and %q", c.args, code, stderr, c.code, c.want)
		}
	}
}
