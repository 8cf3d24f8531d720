package node

import (
	"errors"
	"fmt"
	"net"

	"github.com/understudy-kv/understudy/internal/ports"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/internal/store"
)

// serveShards serves these shards to replicas, in place of the ones before. Slots belong to a data set, so nothing of the
// old server is taken over but what is in slots.json.
func (n *Node) serveShards(shards []*shard.Shard) error {
	if s := n.server.Swap(nil); s != nil {
		if err := s.Close(); err != nil {
			n.opts.Logger.Warn("ending the service of the data set before", "error", err)
		}
	}
	if n.opts.Serve == nil || len(shards) == 0 {
		return nil
	}
	listeners, err := n.listen(len(shards))
	if err != nil {
		return err
	}
	server, err := n.opts.Serve(ServeEnv{
		Shards: shards, Listeners: listeners, Node: n.ID(), Cluster: n.opts.Cluster, Format: n.opts.Format, FS: n.opts.FS,
		Dir: n.opts.Dir, Limits: n.limits, Path: n.Path, Following: func() bool { return n.Role() == store.Replica },
		Streaming: func() bool { f := n.Follower(); return f == nil || f.Streaming() }, Mixed: n.data.Mixed,
		Announce: func() string { return n.opts.Announce }, Takeover: n.takenOver, Logger: n.opts.Logger.Named("replication"),
	})
	if err != nil {
		return errors.Join(err, closeAll(listeners))
	}
	n.server.Store(&serving{server, shards})
	n.applyWindow()
	for _, s := range shards {
		s.SetOnChange(n.changed)
	}
	n.changed() // what changed before that
	return nil
}

// changed tells the serving half that role, path or lineages are others now. It may be called on a shard's loop.
func (n *Node) changed() {
	if s := n.server.Load(); s != nil {
		s.Changed()
	}
}

// listen opens a port for each of count shards. Somebody may take one of a free range before we do, so that is tried a few
// times.
func (n *Node) listen(count int) ([]net.Listener, error) {
	if n.opts.Listen != nil {
		return listenEach(count, n.opts.Listen)
	}
	host := n.opts.ReplicationListen
	if n.opts.ReplicationPortBase != 0 {
		return Listen(host, n.opts.ReplicationPortBase, count)
	}
	var last error
	for try := range 10 {
		n.mu.Lock()
		base := n.mu.base
		n.mu.Unlock()
		if base == 0 || try > 0 {
			var err error
			if base, err = ports.Free(host, count); err != nil {
				return nil, err
			}
		}
		listeners, err := Listen(host, base, count)
		if err == nil {
			n.mu.Lock()
			n.mu.base = base
			n.mu.Unlock()
			return listeners, nil
		}
		last = err
	}
	return nil, last
}

// likelyShards is for how many shards a replica that does not know yet looks for free ports.
const likelyShards = 16

// choosePorts looks for a free range before the shard count is known: the first HELLO tells where this node serves
// replicas, and shards are learned from its answer.
func (n *Node) choosePorts() error {
	if n.mu.base != 0 || n.opts.Serve == nil || n.opts.Listen != nil {
		return nil
	}
	base, err := ports.Free(n.opts.ReplicationListen, likelyShards)
	if err != nil {
		return err
	}
	n.mu.base = base
	return nil
}

// Listen opens the replication ports of n shards at host: shard i listens on base + i. Either all are open or none.
func Listen(host string, base, n int) ([]net.Listener, error) {
	if err := CheckPorts(base, n); err != nil {
		return nil, err
	}
	return listenEach(n, func(i int) (net.Listener, error) {
		l, err := net.Listen("tcp", hostPort(host, base+i))
		if err != nil {
			return nil, fmt.Errorf("replication port of shard %d (of the range %d-%d): %w", i, base, base+n-1, err)
		}
		return l, nil
	})
}

func listenEach(n int, listen func(shard int) (net.Listener, error)) ([]net.Listener, error) {
	listeners := make([]net.Listener, 0, n)
	for i := range n {
		l, err := listen(i)
		if err != nil {
			return nil, errors.Join(err, closeAll(listeners))
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

func closeAll(listeners []net.Listener) error {
	var errs []error
	for _, l := range listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// limits are the bounds of each log.
func (n *Node) limits() (memory, keep, disk int64) {
	keep, disk = n.BacklogLimits()
	return n.opts.BacklogMemory, keep, disk
}

// unserved is why the node's data set is not served to replicas, or nil.
func (n *Node) unserved() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.unserved
}

// ReplicationAddr is "host:port-base", what a replica's Options.Primary takes: the announced address, if there is one.
// "" while nobody is served.
func (n *Node) ReplicationAddr() string {
	host := n.opts.AnnounceHost
	if host == "" {
		host = n.opts.ReplicationListen
	}
	n.mu.Lock()
	base := n.mu.base
	n.mu.Unlock()
	if n.opts.AnnouncePortBase != 0 {
		base = n.opts.AnnouncePortBase
	}
	if base == 0 || n.opts.Serve == nil {
		return ""
	}
	return hostPort(host, base)
}
