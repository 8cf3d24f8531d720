//go:build !race

package keyspace_test

import (
	"testing"

	"github.com/understudy-kv/understudy/internal/keyspace"
)

// A pipeline of commands that one shard answers allocates nothing once its buffers have grown.
func TestExecAllocatesNothing(t *testing.T) {
	k := open(t, 2, keyspace.Options{})
	s := k.NewSession(nil)
	defer s.Close()
	var out discard
	for _, name := range []string{"SET", "GET"} {
		cmds := pipeline(name, 64)
		one := func() {
			if _, err := s.Exec(cmds, &out); err != nil {
				t.Fatal(err)
			}
			_ = out.Flush()
		}
		for range 100 {
			one()
		}
		// Pools may be emptied (under the race detector they are, at random), and the engine allocates for its own work, now and then: less than one a command by far.
		if n := testing.AllocsPerRun(200, one); n > 16 {
			t.Errorf("%s: %v allocations a pipeline of %d", name, n, len(cmds))
		}
	}
}
