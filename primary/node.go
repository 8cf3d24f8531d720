package primary

import (
	"context"
	"time"

	"github.com/understudy-kv/understudy/internal/keyspace"
	"github.com/understudy-kv/understudy/internal/node"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/internal/status"
	"github.com/understudy-kv/understudy/slottable"
	"github.com/understudy-kv/understudy/wire"
)

// StateMachine is what a program brings in place of Pebble: it applies batches with their position, and takes
// snapshots as directories of files. Package machinetest has a conformance suite and a small example.
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

// ReplyError is an error reply, as a client would get it: its first word is the kind, such as WRONGTYPE or LOADING. Test
// with errors.As.
type ReplyError = node.ReplyError

// Errors of a [Node]; test with errors.Is.
var (
	// ErrTooLarge means that one mutation is larger than a frame can be, [wire.MaxPayload] bytes.
	ErrTooLarge = wire.ErrTooLarge
	// ErrClosed means that the node is closed, or being closed.
	ErrClosed = node.ErrClosed
	// ErrFollows is what a proposal gets while the node is a replica.
	ErrFollows = shard.ErrFollows
	// ErrLoop means that the node would follow itself, or a node that follows it.
	ErrLoop = node.ErrLoop
	// ErrNotWhole means that the node's data is no state of any one history, so it cannot become a primary.
	ErrNotWhole = node.ErrNotWhole
	// ErrOneRole means that the node was given no half to play the other role with.
	ErrOneRole = node.ErrOneRole
)

// Node is a running primary, or what became of it. All methods may be called from any goroutine.
type Node struct{ n *node.Node }

// Do executes one command, such as Do(ctx, "SET", "key", "value"), and returns its reply: nil, a string, an int64, a
// float64, a bool or a []any of replies. An error reply is the error, a [ReplyError]. ctx is looked at before the command
// begins: one that has begun is waited for. Transactions and the commands of a connection are not available.
func (n *Node) Do(ctx context.Context, args ...any) (any, error) { return n.n.Do(ctx, args...) }

// Propose makes one mutation of a shard: build adds its puts and deletes, and must not end it. build runs on the shard's
// goroutine, so it must be quick, may read the state machine's data as it is, and may be called twice. When Propose
// returns nil the mutation is in the log (synced, under the policy always), applied, and on its way to replicas; the
// position lies behind it. It needs Options.StateMachine: with the built-in one, use Do.
//
// After an error of build, [ErrTooLarge], [ErrFollows] and [ErrClosed] nothing happened. After an error of the disk the
// mutation may have happened, or may happen still: when it was in the log and could not be synced, or be applied for want
// of room. When ctx ends first it may happen still, too.
func (n *Node) Propose(ctx context.Context, shardID int, build func(*wire.Builder) error) (wire.Position, error) {
	return n.n.Propose(ctx, shardID, build)
}

// ID is the identity of the data directory.
func (n *Node) ID() wire.ID { return n.n.ID() }

// ReplicationAddr is "host:port-base", what a replica's Options.Primary takes.
func (n *Node) ReplicationAddr() string { return n.n.ReplicationAddr() }

// Follow makes the node a replica of the one at address, "host:port-base", and reports whether it was that already. Its
// clients' writes are refused when it returns. [ErrLoop]: that node gets its data from this one.
func (n *Node) Follow(ctx context.Context, address string) (already bool, err error) {
	return n.n.Follow(ctx, address)
}

// Promote makes the node a primary again; see [replica.Node.Promote].
//
// [replica.Node.Promote]: https://pkg.go.dev/github.com/understudy-kv/understudy/replica#Node.Promote
func (n *Node) Promote(ctx context.Context) error { return n.n.Promote(ctx, false) }

// WaitAcked returns how many replicas have acked everything before offsets[i] on every shard i, as soon as that is at
// least replicas, or ctx ends; see [Server.WaitAcked]. The offset of a [Node.Propose] is that of its position.
func (n *Node) WaitAcked(ctx context.Context, offsets []uint64, replicas int, level slottable.Level) int {
	return n.n.WaitAcked(ctx, offsets, replicas, level)
}

// Keyspace routes commands to the shards; nil with a state machine of the program's own.
func (n *Node) Keyspace() *keyspace.Keyspace { return n.n.Keyspace() }

// Shards are the node's shards, by id. The slice must not be changed.
func (n *Node) Shards() []*shard.Shard { return n.n.Shards() }

// Status is a report made now.
func (n *Node) Status() status.Node { return n.n.Status() }

// SetReconnectWindow changes how long a replica that went away keeps its slot.
func (n *Node) SetReconnectWindow(d time.Duration) { n.n.SetReconnectWindow(d) }

// SetBacklogLimits changes how much log each shard keeps on disk, in bytes.
func (n *Node) SetBacklogLimits(keep, disk int64) error { return n.n.SetBacklogLimits(keep, disk) }

// Close ends the sessions of replicas with a stated reason, then stops every shard cleanly. What was queued is done. The
// error tells what could not be stopped cleanly: the next start replays the log. It may be called more than once.
func (n *Node) Close() error { return n.n.Close() }
