package node

import (
	"errors"
	"fmt"
	"time"

	"github.com/understudy-kv/understudy/internal/shard"
)

// What can be changed while the node runs holds for every data set that it gets, until it is closed: a full sync from a
// primary with another shard count is no reason to go back to what the options said.

// BacklogLimits are Options.BacklogKeep and Options.BacklogDisk, or what SetBacklogLimits made of them.
func (n *Node) BacklogLimits() (keep, disk int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.keep, n.mu.disk
}

// SetBacklogLimits changes how much log each shard keeps on disk, in bytes.
func (n *Node) SetBacklogLimits(keep, disk int64) error {
	err := n.set(func(s *shard.Shard) error { return s.SetBacklogLimits(keep, disk) })
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.mu.keep, n.mu.disk = keep, disk
	n.mu.Unlock()
	n.data.store.SetShardOptions(func(o *shard.Options) { o.BacklogKeep, o.BacklogDisk = keep, disk })
	return nil
}

// Fsync is Options.Fsync, or what SetFsync made of it.
func (n *Node) Fsync() shard.Fsync {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.fsync
}

// SetFsync changes Options.Fsync. When it returns nil, every shard syncs by the new policy.
func (n *Node) SetFsync(p shard.Fsync) error {
	if err := n.set(func(s *shard.Shard) error { return s.SetFsync(p) }); err != nil {
		return err
	}
	n.mu.Lock()
	n.mu.fsync = p
	n.mu.Unlock()
	n.data.store.SetShardOptions(func(o *shard.Options) { o.Fsync = p })
	return nil
}

// set changes every open shard, those of a data set that is still filled included.
func (n *Node) set(change func(*shard.Shard) error) error {
	var errs []error
	for _, s := range n.data.all() {
		if err := change(s); err != nil {
			errs = append(errs, fmt.Errorf("shard %d: %w", s.ID(), err))
		}
	}
	return errors.Join(errs...)
}

// settleShards gives the shards of a data set that is to be shown what was changed while it was made.
func (n *Node) settleShards(shards []*shard.Shard) {
	keep, disk := n.BacklogLimits()
	for _, s := range shards {
		err := s.SetBacklogLimits(keep, disk)
		if p := n.Fsync(); p != s.Fsync() {
			err = errors.Join(err, s.SetFsync(p))
		}
		if err != nil {
			n.opts.Logger.Error("a shard does not obey CONFIG SET; set it again", "shard", s.ID(), "error", err)
		}
	}
}

// ReconnectWindow is how long replicas that went away keep their slots, once SetReconnectWindow has said so or replicas
// are served; false before that.
func (n *Node) ReconnectWindow() (time.Duration, bool) {
	n.mu.Lock()
	window := n.mu.window
	n.mu.Unlock()
	if window != nil {
		return *window, true
	}
	if s := n.server.Load(); s != nil {
		return s.ReconnectWindow(), true
	}
	return 0, false
}

// SetReconnectWindow changes it.
func (n *Node) SetReconnectWindow(d time.Duration) {
	n.mu.Lock()
	n.mu.window = &d
	n.mu.Unlock()
	n.applyWindow()
}

// applyWindow tells the serving half what was set. It is called behind each change of either, so the later one wins.
func (n *Node) applyWindow() {
	n.mu.Lock()
	window := n.mu.window
	n.mu.Unlock()
	if s := n.server.Load(); s != nil && window != nil {
		s.SetReconnectWindow(*window)
	}
}
