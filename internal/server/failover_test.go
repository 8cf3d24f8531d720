package server

import "testing"

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
		{"FAILOVER TO db2 6380 FORCE", "-ERR FAILOVER with force option requires both a timeout and target HOST and IP.|", ""},
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
