package replica

import (
	"context"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestLinksTellOfThePrimary: a link that nobody answered dials again as soon as another link of the node is answered.
func TestLinksTellOfThePrimary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		store := filledStore(fs, 0, "")
		second := filledStore(fs, 0, "").shards[0]
		second.id, second.dir = 1, "shard-1"
		store.shards = append(store.shards, second)
		network := &network{t: t}
		for i := range uint32(2) {
			p := newFakePrimary(t)
			p.shard, p.shards = i, 2
			network.primaries = append(network.primaries, p)
		}
		up := make(chan struct{})
		refused := 0 // of shard 1's dials, which are one goroutine's
		f := network.follow(store, func(o *FollowerOptions) {
			o.Backoff = Backoff{Min: time.Hour, Max: time.Hour}
			o.Dial = func(ctx context.Context, address string) (net.Conn, error) {
				select {
				case <-up:
					return network.dial(ctx, address)
				default:
				}
				if strings.HasSuffix(address, ":7001") {
					refused++
					return nil, syscall.ECONNREFUSED
				}
				<-up
				return network.dial(ctx, address)
			}
		})
		time.Sleep(time.Minute)
		synctest.Wait()
		if refused != 1 {
			t.Fatalf("shard 1 dialled %d times in a minute, want once", refused)
		}
		close(up)
		caughtUp(t, f)
		if network.dials != 2 {
			t.Fatalf("%d connections, want 2", network.dials)
		}
		network.close(f)
	})
}
