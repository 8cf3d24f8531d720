package server

import (
	"strings"
	"testing"

	"github.com/understudy-kv/understudy/internal/status"
)

// line is the value of a field of INFO replication.
func (r *rig) line(t *testing.T, name string) string {
	t.Helper()
	_, rest, ok := strings.Cut(r.raw(t, "INFO replication"), "|"+name+":")
	if !ok {
		return ""
	}
	value, _, _ := strings.Cut(rest, "|")
	return value
}

// A node in the middle of a chain follows and serves: it tells of both sides, and its lag is its own.
func TestInfoOfAChainedReplica(t *testing.T) {
	r := start(t, 2, nil)
	n := replicaStatus()
	n.Path = []string{"root", "node"}
	n.Shards[0].Slots = []status.Slot{{Replica: "a", Address: "10.0.0.1:7000", State: "online", Applied: 6, LagMutations: 99, LagBytes: 9999}}
	n.Shards[1].Slots = []status.Slot{{Replica: "a", Address: "10.0.0.1:7000", State: "online"}}
	n.Shards[0].Rewinds, n.Shards[1].Rewinds, n.Shards[1].Unsettled = 2, 1, true
	n.Mixed = true
	r.setStatus(n)
	got := r.raw(t, "INFO replication")
	for _, line := range []string{"role:slave", "master_host:primary.example", "connected_slaves:1", "slave0:ip=10.0.0.1,port=7000,state=online,offset=6,lag=0",
		"repl_path:root,node", "repl_rewinds:3", "repl_unsettled_shards:1", "repl_mixed:1", "repl_lag_mutations:5", "repl_lag_bytes:700"} {
		if !strings.Contains(got, "|"+line+"|") {
			t.Errorf("lacks %s:\n%s", line, strings.ReplaceAll(got, "|", "\n"))
		}
	}
	if got := r.raw(t, "ROLE"); !strings.HasPrefix(got, "*5|$5|slave|") {
		t.Errorf("ROLE: %s", got)
	}
}

// A promotion makes the ids of before the second ones, up to where they hold, as in Redis; so a tool can tell that the
// node went on with a history. A shard without a generation before the present one has no part in it.
func TestReplicationIDsOfAPromotion(t *testing.T) {
	r := start(t, 2, nil)
	node := func(positions [2]string, lineages [2][]string) {
		n := primaryStatus()
		for i := range n.Shards {
			n.Shards[i].Position, n.Shards[i].Lineage = positions[i], lineages[i]
		}
		n.Shards[0].Offset, n.Shards[1].Offset = 100, 40
		r.setStatus(n)
	}
	none := strings.Repeat("0", 40)
	node([2]string{"aa:100", "cc:40"}, [2][]string{{"aa@0"}, {"cc@0"}})
	first := r.line(t, "master_replid")
	if got := r.line(t, "master_replid2") + " " + r.line(t, "second_repl_offset"); got != none+" -1" {
		t.Errorf("without a history: %s", got)
	}
	node([2]string{"bb:100", "dd:40"}, [2][]string{{"aa@0", "bb@90"}, {"cc@0", "dd@30"}})
	second := r.line(t, "master_replid")
	if got := r.line(t, "master_replid2") + " " + r.line(t, "second_repl_offset"); got != first+" 121" || second == first || len(second) != 40 {
		t.Errorf("promoted: %s, now %s; before it was %s", got, second, first)
	}
	// Epochs ahead of the offset do not count yet.
	node([2]string{"aa:80", "cc:20"}, [2][]string{{"aa@0", "bb@90"}, {"cc@0", "dd@30"}})
	if got := r.line(t, "master_replid") + " " + r.line(t, "master_replid2"); got != first+" "+none {
		t.Errorf("on the way there: %s", got)
	}
	// One shard alone, after a power loss.
	node([2]string{"bb:100", "cc:40"}, [2][]string{{"aa@0", "bb@90"}, {"cc@0"}})
	if got := r.line(t, "master_replid2") + " " + r.line(t, "second_repl_offset"); got != first+" 131" {
		t.Errorf("one shard: %s", got)
	}
}

// What a handover does now, and how the last one went.
func TestInfoOfAFailover(t *testing.T) {
	r := start(t, 1, nil)
	for _, c := range []struct {
		failover            *status.Failover
		state, hold, result string
	}{
		{nil, "no-failover", "", ""},
		{&status.Failover{State: status.FailoverWaiting, Hold: 1.25}, "waiting-for-sync", "1.2", "-"},
		{&status.Failover{State: status.FailoverNone, Hold: 80, Result: "a\nb"}, "no-failover", "80.0", "a; b"},
	} {
		n := primaryStatus()
		n.Failover = c.failover
		r.setStatus(n)
		if state, hold, result := r.line(t, "master_failover_state"), r.line(t, "master_last_failover_hold_ms"), r.line(t, "master_last_failover_result"); state != c.state || hold != c.hold || result != c.result {
			t.Errorf("%+v: %s, %s ms, %s", c.failover, state, hold, result)
		}
	}
}
