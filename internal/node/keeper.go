package node

import (
	"time"

	"github.com/understudy-kv/understudy/internal/keyspace"
	"github.com/understudy-kv/understudy/internal/polite"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/internal/store"
)

// serveAgain is how long the keeper waits before it tries again to open replication ports that were taken.
const serveAgain = 5 * time.Second

// setShards changes the data set that readers are to see, and that replicas are served. Readers see it at once if every
// shard has data, and otherwise as soon as that is so: a data set of which one shard is filled and another is not is none
// (pitfall 20).
func (n *Node) setShards(shards []*shard.Shard) {
	n.settleShards(shards)
	n.mu.Lock()
	n.mu.shards, n.mu.shown = shards, false
	n.mu.Unlock()
	if !n.reveal() && n.keyspace != nil {
		n.keyspace.SetShards(nil)
	}
	n.serve(shards)
}

// serve has the data set served, and notes if it cannot be.
func (n *Node) serve(shards []*shard.Shard) {
	err := n.serveShards(shards)
	n.mu.Lock()
	before := n.mu.unserved
	n.mu.unserved = err
	n.mu.Unlock()
	if err != nil && (before == nil || before.Error() != err.Error()) {
		n.opts.Logger.Error("replicas cannot be served", "error", err, "retry_in", serveAgain)
	}
}

// reveal shows the data set if it is complete, and reports whether readers see it.
func (n *Node) reveal() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	whole := len(n.mu.shards) > 0
	for _, s := range n.mu.shards {
		whole = whole && !s.Position().IsZero() && s.Settled()
	}
	if whole == n.mu.shown {
		return whole
	}
	if n.keyspace != nil {
		if whole {
			n.keyspace.SetShards(n.mu.shards)
		} else {
			n.keyspace.SetShards(nil)
		}
	}
	n.mu.shown = whole
	return whole
}

// keep is the keeper.
func (n *Node) keep() {
	ticker := polite.NewTicker(keepEvery)
	defer ticker.Stop()
	tried := time.Now()
	for {
		select {
		case <-ticker.C:
			ticker.Next()
		case <-n.quit:
			return
		}
		n.refresh()
		if n.unserved() == nil || time.Since(tried) < serveAgain {
			continue
		}
		tried = time.Now()
		if n.roleMu.TryLock() {
			n.serve(n.Shards())
			n.roleMu.Unlock()
		}
	}
}

// refresh has readers see what the links have come to: a data set that is complete now, and whether it may be old.
func (n *Node) refresh() {
	n.reveal()
	if !n.opts.RefuseStale || n.keyspace == nil {
		return
	}
	now := n.staleness()
	n.mu.Lock()
	defer n.mu.Unlock()
	if now != n.mu.stale {
		n.keyspace.SetStale(now)
		n.mu.stale = now
	}
}

// staleness is what reads are told while old data is refused.
func (n *Node) staleness() keyspace.Stale {
	if n.Role() == store.Primary {
		return keyspace.Fresh
	}
	f := n.Follower()
	switch {
	case f == nil:
		return keyspace.LinkDown
	case f.Streaming():
		return keyspace.Fresh
	case f.Syncing():
		return keyspace.Syncing
	}
	return keyspace.LinkDown
}
