package keyspace_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/keyspace"
)

// TestExecuteForAll: once many sessions have offered, Execute of one of them has everything executed that lies at its shards, and
// nothing else; whoever is answered by that need not execute anything.
func TestExecuteForAll(t *testing.T) {
	k := open(t, 2, keyspace.Options{})
	key := func(id, n int) string { // the n-th key that lies on the shard
		for i := 0; ; i++ {
			if name := fmt.Sprint("k", i); engine.ShardOf(engine.Slot([]byte(name)), 2) == id {
				if n--; n < 0 {
					return name
				}
			}
		}
	}
	lines := [][]string{{"SET " + key(0, 0) + " a"}, {"SET " + key(0, 1) + " b"}, {"SET " + key(0, 2) + " c", "SET " + key(1, 0) + " d"}}
	sessions, sinks := make([]*keyspace.Session, len(lines)), make([]sink, len(lines))
	for i := range lines {
		sessions[i] = k.NewSession(hook{})
		defer sessions[i].Close()
		var cmds [][][]byte
		for _, l := range lines[i] {
			cmds = append(cmds, words(l))
		}
		if n := sessions[i].Begin(cmds, &sinks[i]); n != len(cmds) {
			t.Fatalf("session %d has planned %d commands", i, n)
		}
		sessions[i].Offer()
	}
	offsets := func() (o [2]uint64) {
		for i, s := range k.Shards() {
			o[i] = s.Position().Offset
		}
		return o
	}
	sessions[0].Execute(nil)
	if o := offsets(); o != [2]uint64{3, 0} {
		t.Fatalf("the shards are at %v, want the three writes to the first, and no other", o)
	}
	sessions[2].Execute(nil)
	sessions[1].Execute(nil)
	if o := offsets(); o != [2]uint64{3, 1} {
		t.Fatalf("the shards are at %v, want all four writes", o)
	}
	for i, want := range []string{"+OK\r\n", "+OK\r\n", "+OK\r\n+OK\r\n"} {
		if len(sinks[i].w.Buf) > 0 {
			t.Errorf("session %d has replies before it settles", i)
		}
		if !sessions[i].Settle(&sinks[i]) || string(sinks[i].w.Buf) != want || sinks[i].flushes > 0 {
			t.Errorf("session %d: %q, want %q, with %d flushes", i, sinks[i].w.Buf, want, sinks[i].flushes)
		}
		sessions[i].Execute(nil) // of nothing
	}
	if o := offsets(); o != [2]uint64{3, 1} {
		t.Errorf("the shards are at %v behind it all", o)
	}
}

// TestPrompt: a command that waits for nothing is answered by Begin, in its place, unless something before it is not answered yet.
func TestPrompt(t *testing.T) {
	k := open(t, 2, keyspace.Options{})
	s := k.NewSession(hook{})
	defer s.Close()
	expect(t, s, "+OK|", "SET a 1")
	begin := func(s *keyspace.Session, lines string) (n int, replies string) {
		t.Helper()
		var out sink
		var cmds [][][]byte
		for _, l := range strings.Split(lines, ", ") {
			cmds = append(cmds, words(l))
		}
		n = s.Begin(cmds, &out)
		replies = strings.ReplaceAll(string(out.w.Buf), "\r\n", "|")
		if _, err := s.Finish(cmds[n:], &out); err != nil {
			t.Fatal(err)
		}
		return n, replies
	}
	for _, tt := range []struct {
		lines, replies string
		n              int
	}{
		{"PING", "+PONG|", 1},
		{"PING, GET a, PING, SET a 1", "+PONG|$1|1|+PONG|", 4},
		{"SET a 1, PING", "", 1},
		{"CLIENT LIST", "", 0},
		{"QUIT", "", 0},
		{"NOSUCH", "", 0},
		{"PING, CLIENT REPLY SKIP, PING", "+PONG|", 1},
	} {
		if n, replies := begin(s, tt.lines); n != tt.n || replies != tt.replies {
			t.Errorf("%s: %d are planned or answered, with %q; want %d, with %q", tt.lines, n, replies, tt.n, tt.replies)
		}
	}
	before := k.Stats.Errors.Load()
	if n, replies := begin(s, "ECHO x"); n != 1 || replies != "-ERR hook: echo|" || k.Stats.Errors.Load() != before+1 {
		t.Errorf("an error of the hook's: %d, %q, and %d errors are counted", n, replies, k.Stats.Errors.Load()-before)
	}
	s.SetReply(keyspace.ReplyOff)
	if n, _ := begin(s, "PING"); n != 0 {
		t.Error("PING is answered by Begin where no replies are wanted")
	}
	s.SetReply(keyspace.ReplyOn)
	expect(t, s, "+OK|", "MULTI")
	if n, _ := begin(s, "PING"); n != 0 {
		t.Error("PING is answered by Begin in a transaction")
	}
	expect(t, s, "*1|+PONG|", "EXEC")
	deaf := keyspace.New(keyspace.Options{}).NewSession(hook{})
	defer deaf.Close()
	if n, _ := begin(deaf, "PING"); n != 0 {
		t.Error("PING is answered by Begin while the node loads")
	}
	if n, _ := begin(k.NewSession(nil), "PING"); n != 0 {
		t.Error("PING is answered without a hook")
	}
}
