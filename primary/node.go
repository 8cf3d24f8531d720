package primary

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/understudy-kv/understudy/internal/keyspace"
	"github.com/understudy-kv/understudy/internal/resp"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/internal/status"
	"github.com/understudy-kv/understudy/internal/store"
	"github.com/understudy-kv/understudy/internal/version"
	"github.com/understudy-kv/understudy/slottable"
	"github.com/understudy-kv/understudy/wire"
)

// Node is a running primary. All methods may be called from any goroutine.
type Node struct {
	opts     Options
	started  time.Time
	base     int            // port of shard 0
	engines  *store.Engines // nil with a state machine of the program's own
	store    *store.Store
	keyspace *keyspace.Keyspace // nil with a state machine of the program's own
	server   *Server
	once     sync.Once // Close

	backlog struct {
		sync.Mutex
		keep, disk int64
	}
}

// errNoKeyspace is what Do returns where there are no commands.
var errNoKeyspace = errors.New("primary: commands need the built-in state machine; this node was opened with Options.StateMachine, use Propose")

// ReplyError is an error reply, as a client would get it: its first word is the kind, such as WRONGTYPE or LOADING. Test
// with errors.As.
type ReplyError = resp.ReplyError

// Do executes one command, such as Do(ctx, "SET", "key", "value"), and returns its reply: nil, a string, an int64, a
// float64, a bool or a []any of replies. An error reply is the error, a [ReplyError]. ctx is looked at before the command
// begins: one that has begun is waited for. Transactions and the commands of a connection are not available.
func (n *Node) Do(ctx context.Context, args ...any) (any, error) {
	if n.keyspace == nil {
		return nil, errNoKeyspace
	}
	return n.keyspace.Do(ctx, args...)
}

// ID is the identity of the data directory.
func (n *Node) ID() wire.ID { return n.store.NodeID() }

// ReplicationAddr is "host:port-base", what a replica's Options.Primary takes.
func (n *Node) ReplicationAddr() string {
	return net.JoinHostPort(n.opts.ReplicationListen, strconv.Itoa(n.base))
}

// Keyspace routes commands to the shards; nil with a state machine of the program's own.
func (n *Node) Keyspace() *keyspace.Keyspace { return n.keyspace }

// Shards are the node's shards, by id. The slice must not be changed.
func (n *Node) Shards() []*shard.Shard { return n.store.Shards() }

// Server is the replication server.
func (n *Node) Server() *Server { return n.server }

// WaitAcked returns how many replicas have acked everything before offsets[i] on every shard i, as soon as that is at
// least replicas, or ctx ends; see [Server.WaitAcked]. The offset of a [Node.Propose] is that of its position.
func (n *Node) WaitAcked(ctx context.Context, offsets []uint64, replicas int, level slottable.Level) int {
	return n.server.WaitAcked(ctx, offsets, replicas, level)
}

// Status is a report made now.
func (n *Node) Status() status.Node {
	shards := n.store.Shards()
	out := status.Node{
		Role: "primary", ID: n.ID().String(), Version: version.String(), Uptime: time.Since(n.started).Seconds(),
		Replication: n.ReplicationAddr() + "-" + strconv.Itoa(n.base+len(shards)-1), Cluster: n.opts.Cluster, Ready: true,
	}
	for i, s := range shards {
		st := n.server.Status(i)
		st.Log.SyncPolicy = string(s.Fsync())
		if st.Error != "" && out.Error == "" {
			out.Error, out.Ready = st.Error, false
		}
		out.Shards = append(out.Shards, st)
	}
	return out
}

// BacklogLimits are Options.BacklogKeep and Options.BacklogDisk, or what SetBacklogLimits made of them.
func (n *Node) BacklogLimits() (keep, disk int64) {
	n.backlog.Lock()
	defer n.backlog.Unlock()
	return n.backlog.keep, n.backlog.disk
}

// SetBacklogLimits changes how much log each shard keeps on disk, in bytes.
func (n *Node) SetBacklogLimits(keep, disk int64) error {
	n.backlog.Lock()
	defer n.backlog.Unlock()
	for _, s := range n.store.Shards() {
		if err := s.Log().SetLimits(keep, disk); err != nil {
			return err
		}
	}
	n.backlog.keep, n.backlog.disk = keep, disk
	return nil
}

// limits are the bounds of each log.
func (n *Node) limits() (memory, keep, disk int64) {
	keep, disk = n.BacklogLimits()
	return n.opts.BacklogMemory, keep, disk
}

// Close ends the sessions of replicas with a stated reason, then stops every shard cleanly. What was queued is done. The
// error tells what could not be stopped cleanly: the next start replays the log. It may be called more than once.
func (n *Node) Close() (err error) {
	n.once.Do(func() {
		var errs []error
		if n.server != nil {
			errs = append(errs, n.server.Close())
		}
		if n.store != nil {
			errs = append(errs, n.store.Close())
		}
		if n.engines != nil {
			n.engines.Close()
		}
		err = errors.Join(errs...)
	})
	return err
}
