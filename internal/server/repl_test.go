package server

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/command/commandtest"
	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/resp"
	"github.com/understudy-kv/understudy/internal/status"
)

// primaryStatus is a primary of two shards with a replica that is online, one in a full sync of one shard, and one that
// has gone.
func primaryStatus() status.Node {
	gen := strings.Repeat("ab", 16)
	return status.Node{Role: RolePrimary, ID: "node", Listen: "127.0.0.1:6380", Ready: true, Shards: []status.Shard{
		{
			Shard: 0, Position: gen + ":100", Offset: 100, FullSyncs: map[string]uint64{"empty": 2, "unknown-generation": 1}, Resumes: 3,
			Refusals: map[string]uint64{"slot-taken": 1}, Log: status.Log{Oldest: 10, Next: 100, MemoryLimit: 64, Durable: 90},
			Slots: []status.Slot{
				{Replica: "a", Address: "10.0.0.1:7000", State: "online", Applied: 99, LagMutations: 1, LagBytes: 50, LastAckAge: 0.5},
				{Replica: "b", Address: "[::1]:7001", State: "online", Applied: 50, LagMutations: 50, LagBytes: 900},
				{Replica: "c", Address: "10.0.0.3:7000", State: "detached", Applied: 7, LagMutations: 93, DetachedFor: 4, ReapedIn: 56},
			},
		},
		{
			Shard: 1, Position: gen + ":40", Offset: 40, FullSyncs: map[string]uint64{"empty": 1}, Log: status.Log{Oldest: 1, Next: 40, MemoryLimit: 64},
			Slots: []status.Slot{
				{Replica: "a", Address: "10.0.0.1:7000", State: "online", Applied: 40, LastAckAge: 2.5},
				{Replica: "b", Address: "[::1]:7001", State: "syncing"},
			},
		},
	}}
}

func replicaStatus() status.Node {
	gen := strings.Repeat("cd", 16)
	return status.Node{Role: RoleReplica, ID: "node", Shards: []status.Shard{
		{Shard: 0, Position: gen + ":7", Offset: 7, Resumes: 1, Link: &status.Link{State: "streaming", Received: 9, Applied: 7, PrimaryOffset: 12, LagMutations: 5, LagBytes: 70, LagMillis: 12, LastIO: 1}},
		{Shard: 1, Position: "none", Link: &status.Link{State: "syncing", LagMutations: 3, LagBytes: 700, LagMillis: 90, DownFor: 8, LastIO: 2.2,
			Sync: &status.Sync{Reason: "empty", Bytes: 25, Total: 100, Rate: 10, ETA: 7.5}}},
	}}
}

func (r *rig) setStatus(n status.Node) {
	r.node.mu.Lock()
	defer r.node.mu.Unlock()
	r.node.node = n
}

// Lag is the worst shard's, never a sum or a difference of maxima (pitfall 36); Redis's own fields are sums, for tools.
func TestInfoReplication(t *testing.T) {
	r := start(t, 2, nil)
	for _, c := range []struct {
		node    status.Node
		section string
		want    []string
	}{
		{primaryStatus(), "replication", []string{"# Replication", "role:master", "connected_slaves:2",
			"slave0:ip=10.0.0.1,port=7000,state=online,offset=139,lag=2", "slave1:ip=::1,port=7001,state=send_bulk,offset=50,lag=0",
			"master_failover_state:no-failover", "master_repl_offset:140", "second_repl_offset:-1", "repl_backlog_active:1",
			"repl_backlog_size:128", "repl_backlog_first_byte_offset:11", "repl_backlog_histlen:129", "repl_ready:1", "repl_shards:2",
			"repl_resumes:3", "repl_full_syncs_empty:3", "repl_full_syncs_unknown_generation:1", "repl_refusals_slot_taken:1",
			"repl_lag_worst_shard:0", "repl_lag_mutations:50", "repl_lag_bytes:900"}},
		{primaryStatus(), "stats", []string{"sync_full:4", "sync_partial_ok:3", "sync_partial_err:1"}},
		{replicaStatus(), "replication", []string{"role:slave", "master_host:primary.example", "master_port:16380", "master_link_status:down",
			"master_last_io_seconds_ago:2", "master_sync_in_progress:1", "slave_read_repl_offset:9", "slave_repl_offset:7",
			"master_sync_total_bytes:100", "master_sync_read_bytes:25", "master_sync_left_bytes:75", "master_sync_perc:25.00",
			"master_link_down_since_seconds:8", "slave_read_only:1", "connected_slaves:0", "master_repl_offset:7",
			"repl_lag_worst_shard:0", "repl_lag_mutations:5", "repl_lag_bytes:700", "repl_lag_ms:90"}},
	} {
		r.setStatus(c.node)
		got := r.raw(t, "INFO "+c.section)
		for _, line := range c.want {
			if !strings.Contains(got, "|"+line+"|") {
				t.Errorf("%s of a %s lacks %s:\n%s", c.section, c.node.Role, line, strings.ReplaceAll(got, "|", "\n"))
			}
		}
	}
	// Every section of Redis is there, in its order.
	got := r.raw(t, "INFO")
	at := 0
	for _, s := range []string{"Server", "Clients", "Memory", "Persistence", "Stats", "Replication", "CPU", "Cluster", "Keyspace"} {
		i := strings.Index(got, "|# "+s+"|")
		if i < at {
			t.Errorf("section %s is missing or out of order", s)
		}
		at = i
	}
	if got := r.raw(t, "INFO nosuch"); got != "$0||" {
		t.Errorf("got %s", got)
	}
}

func TestRole(t *testing.T) {
	r := start(t, 2, nil)
	r.setStatus(primaryStatus())
	if got, want := r.raw(t, "ROLE"), "*3|$6|master|:140|*2|*3|$8|10.0.0.1|$4|7000|$3|139|*3|$3|::1|$4|7001|$2|50|"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	r.setStatus(replicaStatus())
	if got, want := r.raw(t, "ROLE"), "*5|$5|slave|$15|primary.example|:16380|$4|sync|:7|"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// REPLICAOF in Redis's words, and what becomes of errors.
func TestReplicaOf(t *testing.T) {
	r := start(t, 2, nil)
	r.setStatus(replicaStatus())
	for _, c := range []struct{ send, want, role string }{
		{"REPLICAOF primary.example 16380", "+OK Already connected to specified master|", RoleReplica},
		{"REPLICAOF other.example x", "-ERR Invalid master port|", RoleReplica},
		{"REPLICAOF other.example 0", "-ERR Invalid master port|", RoleReplica},
		{"REPLICAOF self.example 1", "-ERR the node would follow itself:; name another|", RoleReplica},
		{"REPLICAOF NO", "-ERR wrong number of arguments for 'replicaof' command|", RoleReplica},
		{"REPLICAOF no One", "+OK|", RolePrimary},
		{"SLAVEOF other.example 16390", "+OK|", RoleReplica},
		{"REPL.PROMOTE NOW", "-ERR syntax error: REPL.PROMOTE [FORCE]|", RoleReplica},
		{"REPL.PROMOTE", "+OK|", RolePrimary},
	} {
		if got := r.raw(t, c.send); got != c.want {
			t.Errorf("%s: %s, want %s", c.send, got, c.want)
		}
		if got := r.node.Role(); got != c.role {
			t.Errorf("%s: the node is a %s, want a %s", c.send, got, c.role)
		}
	}
	// A replica that has no data yet can be sent elsewhere.
	empty := start(t, 0, nil)
	empty.setStatus(replicaStatus())
	if got, want := empty.raw(t, "REPLICAOF other.example 16390\r\nSLAVEOF NO ONE\r\nGET k"), "+OK|+OK|-LOADING Redis is loading the dataset in memory|"; got != want {
		t.Errorf("without data: got %s, want %s", got, want)
	}
	mixed := replicaStatus()
	mixed.Error = "the data set is not whole"
	r.setStatus(mixed)
	if got, want := r.raw(t, "REPLICAOF NO ONE\r\nREPL.PROMOTE FORCE"), "-ERR the data set is not whole|+OK|"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// What is not Redis's stands behind what is, and begins with repl_.
func TestOwnFieldsComeLast(t *testing.T) {
	got := start(t, 2, nil).raw(t, "INFO")
	for section := range strings.SplitSeq(got, "# ") {
		own := ""
		for line := range strings.SplitSeq(section, "|") {
			name, _, field := strings.Cut(line, ":")
			switch {
			case !field:
			case strings.HasPrefix(name, "repl_"):
				own = name
			case own != "" || strings.Contains(name, "understudy") || name == "node_id":
				t.Errorf("%s stands behind %q, or is ours without repl_", name, own)
			}
		}
	}
}

func TestReplVerbs(t *testing.T) {
	r := start(t, 2, nil)
	want := primaryStatus()
	r.setStatus(want)
	c := commandtest.Dial(t, r.addr, 3)
	v, err := resp.NewReader(strings.NewReader(string(c.Do("REPL.SLOTS")))).Read()
	if err != nil || len(v.Elems) != 5 {
		t.Fatalf("%d slots, %v", len(v.Elems), err)
	}
	if state, _ := v.Elems[2].Get("state"); state.Str != "detached" {
		t.Errorf("state %q", state.Str)
	}
	if d, _ := v.Elems[2].Get("detached_seconds"); d.Float != 4 {
		t.Errorf("detached %v", d)
	}
	for _, args := range [][]string{{"REPL.STATUS"}, {"REPL.STATUS", "JSON"}} {
		v, err := resp.NewReader(strings.NewReader(string(c.Do(args...)))).Read()
		var got status.Node
		if err == nil {
			err = json.Unmarshal([]byte(v.Str), &got)
		}
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v, %v", got, err)
		}
	}
}

// A shard that nothing was ever written to has a position like any other, at which a snapshot can be taken.
func TestSnapshotOfNothing(t *testing.T) {
	r := start(t, 1, nil)
	c := commandtest.Dial(t, r.addr, 2)
	v, err := resp.NewReader(strings.NewReader(string(c.Do("REPL.SNAPSHOT", "OPEN", "0")))).Read()
	if err != nil || len(v.Elems) != 2 {
		t.Fatalf("%v, %v", v, err)
	}
	at := v.Elems[1].Str
	if !strings.HasSuffix(at, ":0") {
		t.Errorf("at %q, want offset 0 of a generation", at)
	}
	if got := string(c.Do("REPL.SNAPSHOT", "OPEN", "0", "AT", at, "1000")); !strings.HasPrefix(got, "*2") {
		t.Errorf("got %q", got)
	}
}

// Snapshots of two stores that hold the same agree, wherever the ranges are cut, and a difference is found by its key.
func TestSnapshots(t *testing.T) {
	a, b := start(t, 2, nil), start(t, 2, nil)
	ca, cb := commandtest.Dial(t, a.addr, 2), commandtest.Dial(t, b.addr, 2)
	do := func(c *commandtest.Conn, words ...string) resp.Value {
		t.Helper()
		v, err := resp.NewReader(strings.NewReader(string(c.Do(words...)))).Read()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	const key = "{x}odd"
	shard := engine.ShardOf(engine.Slot([]byte(key)), 2)
	id := fmt.Sprint(shard)
	deadline := fmt.Sprint(time.Now().Add(time.Hour).UnixMilli())
	for i := range 100 {
		for _, c := range []*commandtest.Conn{ca, cb} {
			do(c, "SET", fmt.Sprintf("{x}%d", i), "v", "PXAT", deadline)
		}
	}
	do(cb, "SET", key, "only here")

	va, vb := do(ca, "REPL.SNAPSHOT", "OPEN", id), do(cb, "REPL.SNAPSHOT", "OPEN", id)
	ida, idb := fmt.Sprint(va.Elems[0].Int), fmt.Sprint(vb.Elems[0].Int)
	do(ca, "SET", key, "behind the view")
	full := do(ca, "REPL.SNAPSHOT", "DIGEST", ida, "", "", "0")
	if full.Elems[0].Str != "" || full.Elems[1].Int != 200 {
		t.Fatalf("digest %v", full)
	}
	if other := do(cb, "REPL.SNAPSHOT", "DIGEST", idb, "", "", "0"); other.Elems[2].Str == full.Elems[2].Str || other.Elems[1].Int != 201 {
		t.Errorf("digest %v", other)
	}
	// Narrow it down: pieces of a, the same ranges of b.
	var odd []string
	for from := ""; ; {
		piece := do(ca, "REPL.SNAPSHOT", "DIGEST", ida, from, "", "30")
		next := piece.Elems[0].Str
		if other := do(cb, "REPL.SNAPSHOT", "DIGEST", idb, from, next, "0"); other.Elems[2].Str != piece.Elems[2].Str {
			seen := map[string]bool{}
			for _, e := range do(ca, "REPL.SNAPSHOT", "KEYS", ida, from, next, "0").Elems[1].Elems {
				seen[e.Elems[0].Str+e.Elems[3].Str] = true
			}
			for _, e := range do(cb, "REPL.SNAPSHOT", "KEYS", idb, from, next, "0").Elems[1].Elems {
				if !seen[e.Elems[0].Str+e.Elems[3].Str] {
					odd = append(odd, e.Elems[1].Str+" "+e.Elems[2].Str)
				}
			}
		}
		if from = next; from == "" {
			break
		}
	}
	if fmt.Sprint(odd) != "[record "+key+"]" {
		t.Errorf("differing keys %v", odd)
	}
	if first := do(ca, "REPL.SNAPSHOT", "KEYS", ida, "", "", "3"); len(first.Elems[1].Elems) != 3 || first.Elems[0].Str == "" {
		t.Errorf("keys %v", first)
	}

	// At an exact position, which is reached or not.
	at := va.Elems[1].Str
	if v := do(ca, "REPL.SNAPSHOT", "OPEN", id, "AT", at, "10"); !strings.Contains(v.Str, "HOLD it before") {
		t.Errorf("got %v", v)
	}
	generation, _, _ := strings.Cut(at, ":")
	next := a.ks.Shards()[shard].Position().Offset + 1
	if v := do(ca, "REPL.SNAPSHOT", "OPEN", id, "AT", fmt.Sprintf("%s:%d", generation, next), "10"); !strings.Contains(v.Str, "did not reach") {
		t.Errorf("got %v", v)
	}
	other := commandtest.Dial(t, a.addr, 2)
	opened := make(chan resp.Value, 1)
	go func() { // ends when the position is reached by the SET below, and is waited for
		opened <- do(other, "REPL.SNAPSHOT", "OPEN", id, "AT", fmt.Sprintf("%s:%d", generation, next), "30000")
	}()
	do(ca, "SET", key, "reached")
	v := <-opened
	if len(v.Elems) != 2 || v.Elems[1].Str != fmt.Sprintf("%s:%d", generation, next) {
		t.Errorf("got %v", v)
	}
	if v := do(ca, "REPL.SNAPSHOT", "OPEN", id, "AT", fmt.Sprintf("%s:%d", strings.Repeat("f", 32), next), "10"); !strings.Contains(v.Str, "another history") {
		t.Errorf("got %v", v)
	}

	// Bounded in number and in time.
	for i := 2; i < maxSnapshots; i++ {
		do(ca, "REPL.SNAPSHOT", "OPEN", "0")
	}
	if v := do(ca, "REPL.SNAPSHOT", "OPEN", "0"); !strings.Contains(v.Str, "64 snapshots open already") {
		t.Errorf("got %v", v)
	}
	if v := do(ca, "REPL.SNAPSHOT", "CLOSE", ida); v.Str != "OK" {
		t.Errorf("got %v", v)
	}
	a.snapshots.expire(time.Now().Add(2 * snapshotIdle))
	if n := len(a.snapshots.mu.byID); n != 0 {
		t.Errorf("%d are open", n)
	}
	for _, words := range []string{"DIGEST " + ida + " '' '' 0", "CLOSE 99", "OPEN 7", "OPEN x", "OPEN 0 AT x 10", "HOLD 0 x", "FOO 1", "CLOSE x"} {
		if v := do(ca, append([]string{"REPL.SNAPSHOT"}, strings.Fields(words)...)...); v.Kind != '-' {
			t.Errorf("%s: got %v", words, v)
		}
	}
	if v := do(ca, "REPL.SNAPSHOT", "HOLD", "0", "1000"); v.Str != "OK" {
		t.Errorf("got %v", v)
	}
	do(ca, "REPL.SNAPSHOT", "HOLD", "0", "0")
}
