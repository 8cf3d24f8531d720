package server

import (
	"errors"
	"strings"
	"testing"

	"github.com/understudy-kv/understudy/internal/command/commandtest"
)

// FAILOVER in Redis's words.
func TestFailover(t *testing.T) {
	for _, c := range []struct{ send, want, target string }{
		{"FAILOVER ABORT", "-ERR No failover in progress.|", ""},
		{"FAILOVER", "+OK|", " 0s false"},
		{"FAILOVER TO db2 6380", "+OK|", "db2:6380 0s false"},
		{"FAILOVER TIMEOUT 1500 TO ::1 6380", "+OK|", "[::1]:6380 1.5s false"},
		{"FAILOVER TO db2 6380 FORCE TIMEOUT 5", "+OK|", "db2:6380 5ms true"},
		{"FAILOVER TO db2 6380\r\nFAILOVER ABORT", "+OK|+OK|", ""},
		{"FAILOVER TO db2 x", "-ERR value is not an integer or out of range|", ""},
		{"FAILOVER TO db2", "-ERR syntax error|", ""},
		{"FAILOVER TIMEOUT 0", "-ERR FAILOVER timeout must be greater than 0|", ""},
		{"FAILOVER TIMEOUT x", "-ERR value is not an integer or out of range|", ""},
		{"FAILOVER ABORT TIMEOUT 5", "-ERR syntax error|", ""},
		{"FAILOVER FORCE TIMEOUT 5 TO db2 6380", "+OK|", "db2:6380 5ms true"},
		{"FAILOVER TO db2 6380 FORCE", "-ERR FAILOVER requires connected replicas.|", ""},
		{"FAILOVER TO db2 6380\r\nFAILOVER FORCE", "+OK|-ERR FAILOVER already in progress.|", "db2:6380 0s false"},
	} {
		r := start(t, 1, nil)
		if got := r.raw(t, c.send); got != c.want {
			t.Errorf("%s: %s, want %s", c.send, got, c.want)
		}
		target := ""
		if f := r.node.Status().Failover; f != nil {
			target = f.Target
		}
		if target != c.target {
			t.Errorf("%s asks for %q, want %q", c.send, target, c.target)
		}
	}
}

// What Redis checks before it looks at its replicas is the same, byte for byte, in the same order.
func TestRolesAgainstRedis(t *testing.T) {
	redisAddr := commandtest.StartRedis(t)
	r := start(t, 2, nil)
	r.node.mu.Lock()
	r.node.failover = errors.New("FAILOVER requires connected replicas.")
	r.node.mu.Unlock()
	for _, send := range []string{
		"FAILOVER\r\nFAILOVER ABORT\r\nFAILOVER FOO\r\nFAILOVER TO h\r\nFAILOVER TO h x\r\nFAILOVER TO h 1\r\nFAILOVER TO h 70000\r\nFAILOVER TO",
		"FAILOVER TO h 1 FORCE\r\nFAILOVER FORCE\r\nFAILOVER FORCE TO h 1 TIMEOUT 5\r\nFAILOVER TO h 1 FORCE FORCE\r\nFAILOVER TO h 1 TO h 2",
		"FAILOVER TIMEOUT 0\r\nFAILOVER TIMEOUT -1\r\nFAILOVER TIMEOUT x\r\nFAILOVER TIMEOUT 10\r\nFAILOVER TIMEOUT 1 TIMEOUT 2\r\nFAILOVER TIMEOUT",
		"FAILOVER ABORT ABORT\r\nFAILOVER ABORT TIMEOUT 10\r\nFAILOVER TIMEOUT 10 ABORT\r\nfailover abort",
		"MULTI\r\nFAILOVER\r\nFAILOVER ABORT\r\nPING\r\nEXEC",
		"REPLICAOF NO ONE\r\nSLAVEOF no one\r\nREPLICAOF h -1\r\nREPLICAOF h 65536\r\nREPLICAOF h abc\r\nREPLICAOF NO\r\nREPLICAOF NO ONE FORCE",
		"COMMAND INFO failover replicaof slaveof\r\nCOMMAND DOCS failover",
		"CONFIG GET min-replicas-to-write\r\nCONFIG GET min-slaves-max-lag\r\nCONFIG SET min-replicas-to-write -1\r\nCONFIG SET min-replicas-max-lag x",
		"CONFIG SET min-slaves-to-write 3 min-replicas-max-lag 5\r\nCONFIG GET min-replicas-to-write\r\nSET a 1\r\nDEL nosuch\r\nFLUSHALL\r\nGET a\r\nMULTI\r\nGET a\r\nSET a 1\r\nEXEC\r\nMULTI\r\nGET a\r\nEXEC\r\nSET a",
		"CONFIG SET min-replicas-max-lag 0\r\nSET a 1\r\nCONFIG SET min-replicas-to-write 0 min-replicas-max-lag 10\r\nSET a 1\r\nDEL a",
	} {
		got, want := r.raw(t, send), rawTo(t, redisAddr, send)
		if got != want {
			t.Errorf("%q\n got %s\nwant %s", send, got, want)
		}
	}
	// The role changes while clients have transactions open.
	ours, theirs := commandtest.Dial(t, r.addr, 2), commandtest.Dial(t, redisAddr, 2)
	both := func(words ...string) {
		t.Helper()
		if got, want := string(ours.Do(words...)), string(theirs.Do(words...)); got != want {
			t.Errorf("%q\n got %q\nwant %q", words, got, want)
		}
	}
	demote := func() {
		t.Helper()
		r.setStatus(replicaStatus())
		r.ks.SetReadOnly(true)
		if got := rawTo(t, redisAddr, "REPLICAOF 127.0.0.1 1"); got != "+OK|" {
			t.Fatal(got)
		}
	}
	promote := func() {
		t.Helper()
		r.setStatus(primaryStatus())
		r.ks.SetReadOnly(false)
		if got := rawTo(t, redisAddr, "REPLICAOF NO ONE"); got != "+OK|" {
			t.Fatal(got)
		}
	}
	both("SET", "a", "1")
	for _, queue := range [][]string{{"GET", "a"}, {"SET", "a", "2"}, {"DEL", "a", "b"}} {
		both("MULTI")
		both(queue...)
		demote()
		both("EXEC")
		both("MULTI")
		both("SET", "a", "3")
		both("GET", "a")
		both("EXEC")
		both("GET", "a")
		both("SET", "a", "4")
		both("WAIT", "0", "0")
		both("FAILOVER", "TIMEOUT", "x")
		both("FAILOVER", "ABORT")
		promote()
		both("SET", "a", "1")
	}
	both("MULTI")
	both("SET", "a", "4")
	for _, addr := range []string{r.addr, redisAddr} {
		rawTo(t, addr, "CONFIG SET min-replicas-to-write 1")
	}
	both("EXEC")
	both("GET", "a")
}

// A transaction holds its shards, which a change of their role would wait for.
func TestNoChangeOfRoleInATransaction(t *testing.T) {
	r := start(t, 1, nil)
	for _, verb := range []string{"REPLICAOF NO ONE", "SLAVEOF db2 6380", "REPL.PROMOTE"} {
		name, _, _ := strings.Cut(verb, " ")
		want := "+OK|+QUEUED|+QUEUED|*2|+OK|-ERR the role cannot be changed within a transaction: send " + name + " outside of MULTI|"
		if got := r.raw(t, "MULTI\r\nSET a 1\r\n"+verb+"\r\nEXEC"); got != want {
			t.Errorf("%s: %s, want %s", verb, got, want)
		}
	}
}
