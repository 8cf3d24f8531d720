package sim

import (
	"math/rand/v2"
	"sync"
	"testing"
)

// TestCutWhileClosing: connections are cut while their ends close them, and neither waits for the other for ever.
func TestCutWhileClosing(t *testing.T) {
	n, random := newNetwork(1, 2), func() *rand.Rand { return rand.New(rand.NewPCG(1, 1)) }
	from, to := &incarnation{host: &host{id: 0}}, &incarnation{host: &host{id: 1}}
	for range 2000 {
		forth, back := newPipe(n.route(0, 1), random()), newPipe(n.route(1, 0), random())
		near := &conn{in: back, out: forth, owner: from}
		near.peer = &conn{in: forth, out: back, owner: to, peer: near}
		n.conns = append(n.conns[:0], near)
		var ends sync.WaitGroup
		ends.Go(forth.finish)
		ends.Go(back.finish)
		n.cut(0, 1, random())
		ends.Wait()
	}
}
