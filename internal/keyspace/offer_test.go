package keyspace_test

import (
	"fmt"
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
