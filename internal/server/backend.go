package server

import (
	"context"
	"time"

	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/internal/status"
)

// AckLevel is how far a replica must have a write before a wait counts it.
type AckLevel uint8

// The levels that clients can wait for: WAIT asks for applied, WAITAOF for durable.
const (
	AckApplied AckLevel = iota
	AckDurable
)

// Roles, as [Backend.Role] and status.Node.Role tell them.
const (
	RolePrimary = "primary"
	RoleReplica = "replica"
)

// Backend is what the connections need to know of the node they belong to, and to ask of it. A call that only makes sense
// for the other role than the node's present one answers the zero value or an error that says so.
// All methods are safe for concurrent use, and none is called per mutation.
type Backend interface {
	// Role is [RolePrimary] or [RoleReplica].
	Role() string
	// Status is a report made now. INFO, ROLE and the REPL verbs are printed from it.
	Status() status.Node
	// Following is the address of the primary that this replica follows, as host and base port; "" and 0 on a primary.
	Following() (host string, port int)
	// Follow makes the node a replica of the one whose replication ports begin there, and reports whether it was that
	// already.
	Follow(ctx context.Context, host string, port int) (already bool, err error)
	// Promote makes the node a primary; with force, even if its shards' data is not of one age.
	Promote(ctx context.Context, force bool) error
	// Failover begins to hand the role over to the replica at the address, or to the first that has everything; with
	// force, also to one that lacks something when the time is up. AbortFailover ends it. Status tells how it went.
	Failover(ctx context.Context, address string, limit time.Duration, force bool) error
	AbortFailover() error
	// Wait returns how many distinct replica ids have acked, at the level, everything before written[i] on every
	// shard i, as soon as that is at least replicas or ctx ends. An entry of 0 asks nothing of its shard. Acks of
	// other generations and of slots without a live session do not count (pitfall 11).
	Wait(ctx context.Context, written []uint64, replicas int, level AckLevel) int
	// FreshReplicas is how many distinct replica ids have live sessions on every shard and have applied, on every shard,
	// everything that was published maxLag ago.
	FreshReplicas(maxLag time.Duration) int
	// LagMillis is how old, in milliseconds, what readers of this replica see may be, on the worst shard; it grows while a
	// link is down. 0 on a primary.
	LagMillis() float64
	// DropSlot forgets what the node remembers of a replica, on every shard, and reports on how many it did. It is
	// an error if there is no such slot, or if the replica is attached.
	DropSlot(replica string) (int, error)
	// Fsync is the policy by which the shards' logs are synced, those of later data sets too; SetFsync changes it.
	Fsync() shard.Fsync
	SetFsync(shard.Fsync) error
	// Params are the parameters of the node for CONFIG GET and CONFIG SET, beside those of the connections.
	Params() []Param
}

// Param is one parameter of CONFIG GET and CONFIG SET.
type Param struct {
	Name string
	Get  func() string
	Set  func(value string) error // nil: it cannot be changed while the process runs
}
