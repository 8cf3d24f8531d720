package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/internal/store"
)

// Errors of a change of role; test with errors.Is.
var (
	// ErrClosed means that the node is closed, or being closed.
	ErrClosed = shard.ErrClosed
	// ErrNotWhole means that the node's data is no state of any one history, so it cannot become a primary.
	ErrNotWhole = errors.New("the data set is not whole")
	// ErrLoop means that the node would follow itself, or a node that follows it.
	ErrLoop = errors.New("the node would follow itself")
	// ErrOneRole means that the program gave the node only one half of replication.
	ErrOneRole = errors.New("this program plays one role only")
)

// Promote makes a replica a primary, and returns at once on a primary. It waits for nobody: links end, what was received
// is applied, and every shard begins a generation at its applied offset. With force, data that is older on one shard than
// on another is taken as it is. After an error that is ErrNotWhole the node follows as before.
func (n *Node) Promote(_ context.Context, force bool) error {
	n.roleMu.Lock()
	defer n.roleMu.Unlock()
	if n.handingOver() {
		return fmt.Errorf("%w: FAILOVER ABORT ends it", ErrFailoverRunning)
	}
	return n.promote(force, func() error { return n.data.store.SetRole(store.Primary, "") })
}

// promote needs roleMu. record makes the role durable.
func (n *Node) promote(force bool, record func() error) error {
	if n.isClosed() {
		return ErrClosed
	}
	if n.Role() == store.Primary {
		return n.completePromotion() // an earlier one may have failed on a shard
	}
	if n.opts.Serve == nil {
		return fmt.Errorf("%w: a node without a serving half cannot be a primary; set Options.Serve to primary.Serve", ErrOneRole)
	}
	f := n.Follower()
	// What can be refused at once ends no link.
	if err := n.promotable(f, force); err != nil {
		return err
	}
	if f != nil {
		if err := n.stopLinks(f, true); err != nil {
			return err
		}
	}
	// Only now is it certain what the node has: a link may just have loaded a snapshot.
	err := n.promotable(f, force)
	if err == nil {
		err = record()
	}
	if f != nil {
		n.forget(f)
	}
	if err != nil {
		return errors.Join(err, n.follow(n.Primary())) // which goes on with what was staged
	}
	n.unstage(f)
	if err := n.data.discard(); err != nil {
		n.opts.Logger.Warn("a data set that was being fetched could not be removed", "error", err)
	}
	n.mu.Lock()
	n.mu.role, n.mu.primary = store.Primary, ""
	n.mu.Unlock()
	return n.completePromotion()
}

// completePromotion has every shard begin its generation, and then lets clients write.
func (n *Node) completePromotion() error {
	var errs []error
	for _, s := range n.Shards() {
		if s.Writable() {
			continue
		}
		at, err := s.Promote()
		if err != nil {
			errs = append(errs, fmt.Errorf("shard %d was not promoted: %w; mend it and say REPLICAOF NO ONE again", s.ID(), err))
			continue
		}
		n.opts.Logger.Info("promoted", "shard", s.ID(), "position", at)
	}
	n.changed()
	if n.keyspace != nil && len(errs) == 0 {
		n.keyspace.SetReadOnly(false)
	}
	n.refresh()
	return errors.Join(errs...)
}

// promotable says why the node cannot be a primary with the data that it has, or nil. f is what it follows, if it does.
func (n *Node) promotable(f Follower, force bool) error {
	if f != nil && !force {
		if err := f.Mixed(); err != nil {
			return fmt.Errorf("%w: %w; wait for it, promote another replica, or use REPL.PROMOTE FORCE", ErrNotWhole, err)
		}
	}
	return n.whole()
}

// whole says why the data set is not one that can be served as a primary's, or nil.
func (n *Node) whole() error {
	shards := n.Shards()
	if len(shards) == 0 {
		return fmt.Errorf("%w: this replica has no data yet", ErrNotWhole)
	}
	for _, s := range shards {
		switch {
		case s.Position().IsZero():
			return fmt.Errorf("%w: shard %d of %d has no data yet; wait for its full sync, or promote another replica", ErrNotWhole, s.ID(), len(shards))
		case !s.Settled():
			return fmt.Errorf("%w: shard %d is in the middle of a rejoin; wait for it, or promote another replica", ErrNotWhole, s.ID())
		case s.Err() != nil:
			return fmt.Errorf("shard %d has failed: %w; promote another replica", s.ID(), s.Err())
		}
	}
	return nil
}

// Follow makes the node a replica of the one at address, "host:port-base". It reports whether it was that already. It
// returns when no shard takes writes any more; the links come up, or do not, behind that.
func (n *Node) Follow(ctx context.Context, address string) (already bool, err error) {
	if _, _, err := SplitAddress(address); err != nil {
		return false, fmt.Errorf("%q: %w", address, err)
	}
	n.roleMu.Lock()
	defer n.roleMu.Unlock()
	switch {
	case n.isClosed():
		return false, ErrClosed
	case n.handingOver():
		return false, fmt.Errorf("%w: FAILOVER ABORT ends it", ErrFailoverRunning)
	case n.opts.Follow == nil:
		return false, fmt.Errorf("%w: a node without a following half cannot be a replica; set Options.Follow to replica.Follow", ErrOneRole)
	case n.Role() == store.Replica && n.Primary() == address:
		return true, nil
	}
	if err := n.checkLoop(ctx, address); err != nil {
		return false, err
	}
	return false, n.demote(address, true)
}

// demote needs roleMu. With fresh, what was staged of another primary is discarded.
func (n *Node) demote(address string, fresh bool) error {
	if err := n.data.store.SetRole(store.Replica, address); err != nil {
		return err
	}
	if n.keyspace != nil {
		n.keyspace.SetReadOnly(true)
	}
	n.mu.Lock()
	f := n.mu.follower
	n.mu.role, n.mu.primary = store.Replica, address
	n.mu.Unlock()
	var errs []error
	if f != nil {
		errs = append(errs, n.stopLinks(f, false))
		n.forget(f)
		n.unstage(f)
	}
	if fresh {
		errs = append(errs, n.data.discard())
	}
	for _, s := range n.Shards() {
		if err := s.Demote(); err != nil {
			errs = append(errs, fmt.Errorf("shard %d: %w", s.ID(), err))
		}
	}
	n.changed()
	errs = append(errs, n.follow(address))
	n.refresh()
	return errors.Join(errs...)
}

// follow starts the links to the address.
func (n *Node) follow(address string) error {
	if n.opts.Follow == nil {
		return fmt.Errorf("%w: the data directory is a replica's, of %s; set Options.Follow to replica.Follow", ErrOneRole, address)
	}
	f, err := n.opts.Follow(FollowEnv{
		Primary: address, Store: n.data, ReplicaID: n.opts.ReplicaID, Nonce: n.data.store.Nonce(), Node: n.ID(),
		Announce: n.opts.Announce, AnnounceBase: n.ReplicationAddr, Cluster: n.opts.Cluster, Format: n.opts.Format,
		FS: n.opts.FS, Dir: n.opts.Dir, OnChange: n.changed, Logger: n.opts.Logger.Named("replication"),
	})
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.mu.follower = f
	n.mu.Unlock()
	return nil
}

// forget takes a stopped follower's place away, but keeps what it has counted.
func (n *Node) forget(f Follower) {
	counted := f.Status()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range counted {
		c := n.mu.past[s.Shard]
		c.add(&s)
		n.mu.past[s.Shard] = c
	}
	n.mu.follower = nil
}

// unstage removes what a stopped follower has staged, if there was one.
func (n *Node) unstage(f Follower) {
	if f == nil {
		return
	}
	if err := f.Discard(); err != nil {
		n.opts.Logger.Warn("what was staged for a full sync could not be removed", "error", err)
	}
}

func (n *Node) handingOver() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.running != nil
}

func (n *Node) isClosed() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.closed
}
