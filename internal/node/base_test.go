package node_test

import (
	"net"
	"strconv"
	"testing"

	"github.com/understudy-kv/understudy/internal/eventually"
	"github.com/understudy-kv/understudy/internal/node"
	"github.com/understudy-kv/understudy/internal/store"
)

// A replica looks for ports before it knows how many it needs. When there turn out to be more shards than fit there, it serves
// elsewhere, and its primary gets to know that for every shard: a handover would ask in vain otherwise.
func TestAnnouncedBaseOfManyShards(t *testing.T) {
	p := openNode(t, "p", "")
	const shards = 20
	p.close()
	p.opts.Dir, p.opts.Shards = t.TempDir(), shards
	p.open()
	at := p.ReplicationAddr()
	p.close()
	a := openNode(t, "a", at)
	host, base, err := node.SplitAddress(a.ReplicationAddr())
	if err != nil {
		t.Fatal(err)
	}
	for i := 16; i < shards; i++ { // who cannot listen finds the port taken, which is as good
		if l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(base+i))); err == nil {
			defer l.Close()
		}
	}
	p.open()
	p.fill("k", 100)
	same(t, p, a)
	if _, now, err := node.SplitAddress(a.ReplicationAddr()); err != nil || now == base {
		t.Fatalf("the replica serves %d shards at %d still (%v), where ports are taken", shards, base, err)
	}
	eventually.True(t, patience, "the primary knows where the replica serves each shard", func() bool {
		for _, s := range p.Status().Shards {
			if len(s.Slots) != 1 || s.Slots[0].State != "online" || s.Slots[0].AnnounceBase != a.ReplicationAddr() {
				return false
			}
		}
		return true
	})
	if err := p.Failover(t.Context(), node.FailoverRequest{Target: a.ReplicationAddr(), Timeout: patience}); err != nil {
		t.Fatal(err)
	}
	if f := p.over(); f.Result != "done" || a.Role() != store.Primary {
		t.Fatalf("%+v", f)
	}
}
