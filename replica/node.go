package replica

import (
	"context"

	"github.com/understudy-kv/understudy/internal/keyspace"
	"github.com/understudy-kv/understudy/internal/node"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/internal/status"
	"github.com/understudy-kv/understudy/wire"
)

// StateMachine is what a program brings in place of Pebble: it applies batches with their position, and opens snapshots
// that the primary's machine of the same kind made.
type StateMachine = shard.StateMachine

// Rewinder is a [StateMachine] that can rejoin by difference, at either end.
type Rewinder = shard.Rewinder

// Summer is a [StateMachine] that knows the sums of files that it wrote.
type Summer = shard.Summer

// Quieter is a [StateMachine] that can put off work of its own.
type Quieter = shard.Quieter

// Hurrier is a [StateMachine] whose background work leaves processors to others while nobody waits for it.
type Hurrier = shard.Hurrier

// Progresser is a [StateMachine] that tells how far a flush is.
type Progresser = shard.Progresser

// MachineEnv is what a state machine is given when it is opened.
type MachineEnv = shard.Env

// ReplyError is an error reply, as a client would get it: its first word is the kind, such as READONLY or LOADING. Test
// with errors.As.
type ReplyError = node.ReplyError

// ErrNotWhole is what Promote returns for data that is no state of any one history; test with errors.Is.
var ErrNotWhole = node.ErrNotWhole

// Node is a running replica, or what became of it. All methods may be called from any goroutine.
type Node struct{ n *node.Node }

// Do executes one command that reads, such as Do(ctx, "GET", "key"), and returns its reply: nil, a string, an int64, a
// float64, a bool or a []any of replies. An error reply is the error, a [ReplyError]: READONLY for a command that writes,
// LOADING before the first full sync is complete; with Options.RefuseStale also LOADING while a full sync runs, and
// MASTERDOWN while a link is down. ctx is looked at before the command begins: one that has begun is waited for.
func (n *Node) Do(ctx context.Context, args ...any) (any, error) { return n.n.Do(ctx, args...) }

// Propose is primary.Node's; it fails while the node is a replica.
func (n *Node) Propose(ctx context.Context, shardID int, build func(*wire.Builder) error) (wire.Position, error) {
	return n.n.Propose(ctx, shardID, build)
}

// ID is the identity of the data directory.
func (n *Node) ID() wire.ID { return n.n.ID() }

// ReplicaID is the identity under which the primary knows this replica.
func (n *Node) ReplicaID() wire.ID { return n.n.ReplicaID() }

// Primary is the address that is followed, "host:port-base"; "" once the node was promoted.
func (n *Node) Primary() string { return n.n.Primary() }

// ReplicationAddr is "host:port-base", where the node serves replicas of its own; "" if it does not.
func (n *Node) ReplicationAddr() string { return n.n.ReplicationAddr() }

// Follow makes the node a replica of another primary, at "host:port-base", and reports whether it was that already.
func (n *Node) Follow(ctx context.Context, address string) (already bool, err error) {
	return n.n.Follow(ctx, address)
}

// Promote makes the node a primary. It does not wait for the old one: what was received is applied, and every shard begins
// a generation of its own, so whatever the old primary wrote besides is not on this node's history. It needs Options.Serve.
// After an [ErrNotWhole], because a full sync is not over, the node follows as before.
func (n *Node) Promote(ctx context.Context) error { return n.n.Promote(ctx, false) }

// Keyspace reads from the shards; nil with a state machine of the program's own.
func (n *Node) Keyspace() *keyspace.Keyspace { return n.n.Keyspace() }

// Shards are the shards of the data set that readers see, by id; none before the primary was heard for the first time.
// They change when the primary's shard count does. The slice must not be changed.
func (n *Node) Shards() []*shard.Shard { return n.n.Shards() }

// Lag is how far the node is behind: the worst shard's figures. A primary is not behind.
func (n *Node) Lag() Lag {
	if f, ok := n.n.Follower().(*Follower); ok {
		return f.Lag()
	}
	return Lag{}
}

// WaitCaughtUp returns once every shard has applied, and readers see, everything that the primary had when the call was
// made; see [Follower.WaitCaughtUp].
func (n *Node) WaitCaughtUp(ctx context.Context) error { return n.n.WaitCaughtUp(ctx) }

// Status is a report made now.
func (n *Node) Status() status.Node { return n.n.Status() }

// Close ends the links and stops every shard cleanly. It may be called more than once.
func (n *Node) Close() error { return n.n.Close() }
