package replica

import (
	"testing"
	"time"
)

// TestCloseDuringAHold: a stop does not wait for a verification that holds up a shard and went away. What waits for the
// hold's end is asked for again at the next start.
func TestCloseDuringAHold(t *testing.T) {
	s := newSource(t)
	s.set(0, 10)
	s.checkpoint(1)
	network := &network{t: t, primaries: []*fakePrimary{s.fakePrimary}}
	n := openNode(t, network, t.TempDir(), nil)
	nodeCaughtUp(t, n)
	n.Shards()[0].PauseIngest(time.Minute)
	s.set(10, 20)
	await(t, func() bool { return n.Status().Shards[0].Link.Received == 20 })
	closed := make(chan error, 1)
	// Ends with the node's Close, which is waited for.
	go func() { closed <- n.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the stop waits for the hold")
	}
	network.serving.Wait()
}
