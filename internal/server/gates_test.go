package server

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/command/commandtest"
	"github.com/understudy-kv/understudy/internal/eventually"
)

func (r *rig) set(f func(*fakeBackend)) {
	r.node.mu.Lock()
	defer r.node.mu.Unlock()
	f(r.node)
}

func (r *rig) becomes(t *testing.T, send, want string) {
	t.Helper()
	got := ""
	ok := func() bool { got = r.raw(t, send); return strings.HasPrefix(got, want) }
	eventually.True(t, 10*time.Second, fmt.Sprintf("%s replies %s", send, want), ok)
}

func TestMinReplicasToWrite(t *testing.T) {
	r := start(t, 2, func(o *ServeOptions) { o.MinReplicas = 1 })
	r.becomes(t, "SET a 1", "-NOREPLICAS Not enough good replicas to write.|")
	r.set(func(f *fakeBackend) { f.fresh = 1 })
	r.becomes(t, "SET a 1", "+OK|")
	r.set(func(f *fakeBackend) {
		if f.maxLag != 10*time.Second {
			t.Errorf("asked for a lag of %s", f.maxLag)
		}
	})
	// What CONFIG SET says is true of the next command.
	for _, c := range []struct{ send, want string }{
		{"CONFIG SET min-slaves-to-write 2\r\nSET a 1", "+OK|-NOREPLICAS"},
		{"CONFIG SET min-replicas-to-write 1\r\nSET a 1", "+OK|+OK|"},
		{"CONFIG SET min-replicas-max-lag 3 min-replicas-to-write 5\r\nSET a 1\r\nMSET a 1 b 2 c 3", "+OK|-NOREPLICAS Not enough good replicas to write.|-NOREPLICAS"},
		{"CONFIG GET min-*", "*8|$20|min-replicas-max-lag|$1|3|$21|min-replicas-to-write|$1|5|$18|min-slaves-max-lag|$1|3|$19|min-slaves-to-write|$1|5|"},
		{"CONFIG SET min-slaves-max-lag 0\r\nSET a 1", "+OK|+OK|"},
		{"CONFIG SET min-replicas-max-lag 1 min-replicas-to-write x\r\nSET a 1", "-ERR CONFIG SET failed"},
	} {
		if got := r.raw(t, c.send); !strings.HasPrefix(got, c.want) {
			t.Errorf("%q: %s, want %s", c.send, got, c.want)
		}
	}
	if got := r.raw(t, "INFO replication"); strings.Contains(got, "min_slaves_good_slaves") {
		t.Errorf("INFO of a gate that is off: %s", got)
	}
	if got := r.raw(t, "CONFIG SET min-replicas-max-lag 7\r\nINFO replication"); !strings.Contains(got, "|connected_slaves:0|min_slaves_good_slaves:1|") {
		t.Errorf("INFO: %s", got)
	}
	r.set(func(f *fakeBackend) {
		if f.maxLag != 7*time.Second {
			t.Errorf("asked for a lag of %s", f.maxLag)
		}
	})
}

func TestReplicaMaxStaleness(t *testing.T) {
	r := start(t, 2, nil)
	r.raw(t, "SET a 1")
	r.setStatus(replicaStatus())
	r.ks.SetReadOnly(true)
	r.set(func(f *fakeBackend) { f.lag = 50 })
	if got := r.raw(t, "CONFIG SET replica-max-staleness 50ms\r\nGET a\r\nCONFIG GET replica-max*"); got != "+OK|$1|1|*2|$21|replica-max-staleness|$4|50ms|" {
		t.Errorf("got %s", got)
	}
	r.set(func(f *fakeBackend) { f.lag = 50.1 })
	r.becomes(t, "GET a", "-STALE this replica's data may be more than 50ms old, ")
	if got := r.raw(t, "PING\r\nROLE\r\nREPL.STATUS\r\nSET a 1\r\nDBSIZE\r\nMGET a b c"); !strings.HasPrefix(got, "+PONG|*5|") || strings.Count(got, "|-STALE ") != 2 || strings.Count(got, "|-READONLY ") != 1 {
		t.Errorf("got %s", got)
	}
	for _, bad := range []string{"-1s", "5", "x"} {
		if got := r.raw(t, "CONFIG SET replica-max-staleness "+bad); !strings.Contains(got, "argument must be a duration") {
			t.Errorf("%s: %s", bad, got)
		}
	}
	if got := r.raw(t, "CONFIG SET replica-max-staleness 1s\r\nGET a\r\nCONFIG SET replica-max-staleness 10ms\r\nGET a\r\nCONFIG SET replica-max-staleness 0\r\nGET a"); !strings.HasPrefix(got, "+OK|$1|1|+OK|-STALE") || !strings.HasSuffix(got, "|+OK|$1|1|") {
		t.Errorf("got %s", got)
	}
	// Promoted, its data is the newest there is.
	r.raw(t, "CONFIG SET replica-max-staleness 10ms")
	r.setStatus(primaryStatus())
	r.ks.SetReadOnly(false)
	if got := r.raw(t, "GET a"); got != "$1|1|" {
		t.Errorf("got %s", got)
	}
}

// A write that is held holds nobody else: the client may leave or be killed, and the server may stop.
func TestHeldConnectionsEnd(t *testing.T) {
	r := start(t, 2, nil)
	release := r.ks.HoldWrites()
	defer release()
	held := func(send string) net.Conn {
		t.Helper()
		nc, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		if _, err := nc.Write([]byte(send)); err != nil {
			t.Fatal(err)
		}
		r.blocked(t, 1)
		return nc
	}
	first := held("PING\r\nSET a 1\r\nGET a\r\n")
	_ = first.SetReadDeadline(time.Now().Add(5 * time.Second))
	got := make([]byte, 100)
	if n, err := first.Read(got); err != nil || string(got[:n]) != "+PONG\r\n" {
		t.Errorf("what comes before the held write: %q, %v", got[:n], err)
	}
	if got := r.raw(t, "CLIENT LIST"); !strings.Contains(got, " flags=b ") {
		t.Errorf("CLIENT LIST: %s", got)
	}
	first.Close()
	r.blocked(t, 0)
	held("MSET a 1 b 2 c 3 d 4\r\n")
	c := commandtest.Dial(t, r.addr, 2)
	c.Do("CLIENT", "KILL", "TYPE", "normal")
	r.blocked(t, 0)
	if got := r.raw(t, "EXISTS a b c d"); got != ":0|" {
		t.Errorf("got %s", got)
	}
	// One that stays goes on.
	stays := commandtest.Dial(t, r.addr, 2)
	done := make(chan string, 1)
	go func() { done <- string(stays.Do("INCR", "n")) }() // ended by the release, and waited for
	r.blocked(t, 1)
	release()
	if got := <-done; got != ":1\r\n" {
		t.Errorf("got %q", got)
	}
	defer r.ks.HoldWrites()()
	held("MULTI\r\nSET a 1\r\nEXEC\r\n")
	begun := time.Now()
	if err := r.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("a stop took %s", took)
	}
}
