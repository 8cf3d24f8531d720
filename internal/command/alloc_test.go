//go:build !race

// The race detector allocates where the code does not.

package command

import (
	"strings"
	"testing"
)

// The hot commands allocate nothing once buffers have grown.
func TestHandlersAllocateNothing(t *testing.T) {
	for _, call := range []string{"SET k v", "GET k", "INCR n", "SET k v EX 100 NX", "APPEND a b", "DEL none", "MSET a 1 b 2", "EXPIRE k 100", "nosuch"} {
		x := newExecutor(t, 1)
		args := words(strings.Fields(call)...)
		x.do(words("SET", "k", "v"))
		s := x.shards[0]
		x.ctx.Bind(s.e.Tx(), &x.out)
		round := func() {
			s.b.Reset()
			x.group++
			for range 20 {
				c := Lookup(args[0])
				if c == nil {
					return
				}
				x.out.Buf = x.out.Buf[:0]
				s.e.Tx().Begin(&s.b, x.group, 1_000_000)
				x.ctx.Args = args
				c.Run(&x.ctx)
				s.e.Tx().End()
			}
		}
		for range 3 {
			round()
		}
		limit := 0.0
		if strings.HasPrefix(call, "GET") || strings.HasPrefix(call, "DEL") {
			limit = 1 // the first read of a round goes down to Pebble
		}
		if n := testing.AllocsPerRun(50, round); n > limit*20 {
			t.Errorf("%s: %v allocations in 20 calls", call, n)
		}
	}
}
