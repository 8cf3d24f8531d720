package replica

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/internal/node"
	nodestore "github.com/understudy-kv/understudy/internal/store"
	"github.com/understudy-kv/understudy/wire"
)

// Options configure a replica. Dir and Primary are required; everything else has a default.
type Options struct {
	// Dir is the data directory. It is made if need be, and locked.
	Dir string
	// Primary is "host:port-base" of the primary's replication ports. The host is resolved at each dial.
	Primary string
	// ReplicaID is the identity under which the primary knows this replica. Default: a UUID kept in Dir.
	ReplicaID wire.ID
	// Announce is where clients reach this node, "host:port", for the status of other nodes. May be empty.
	Announce string
	// Serve lets the node serve replicas of its own and be promoted: primary.Serve(primary.ServerOptions{}). Default: it
	// cannot.
	Serve node.ServeFunc
	// ReplicationListen and ReplicationPortBase are where it serves them: shard i listens on base + i. Defaults: 127.0.0.1,
	// and a free range that is another one at each start.
	ReplicationListen   string
	ReplicationPortBase int
	// AnnounceHost and AnnouncePortBase are where other nodes reach those ports, if that is somewhere else.
	AnnounceHost     string
	AnnouncePortBase int
	// Cluster must be the primary's cluster name.
	Cluster string
	// User and Password are what the primary asks for, if it does. They are sent as they are.
	User     string
	Password []byte
	// Fsync is "always", "everysec" (the default) or "no": when the log is synced, and so when acks say durable.
	Fsync string
	// Memory is what the node may use for caches and buffers, in bytes, beside backlogs and inboxes. Of all but
	// 16 MiB, or a quarter if that is less, three quarters are for memtables and Pebble's blocks. While a data set with another shard count is being fetched, both have theirs.
	// Default 512 MiB.
	Memory int64
	// BackgroundCPU is how many processors flushes and compactions take together, such as 0.5 or 2. They take more only while
	// somebody waits for them: a full sync, a stop, or writes that would have to wait. Default: half of the processors.
	BackgroundCPU float64
	// BacklogMemory, BacklogKeep and BacklogDisk bound each shard's log, in bytes. Defaults 16 MiB, 128 MiB, 2 GiB.
	BacklogMemory, BacklogKeep, BacklogDisk int64
	// InboxBytes bounds the frames of each shard that wait to be applied. Default 32 MiB.
	InboxBytes int64
	// SyncRate limits full syncs, all shards together, in bytes per second. Default 0: no limit.
	SyncRate int64
	// SurplusLimit is FollowerOptions.SurplusLimit.
	SurplusLimit int64
	// RefuseStale has reads answered by an error while a link is down or syncing. Default: old data is served.
	RefuseStale bool
	// AcceptEmptyPrimary lets a primary that holds nothing replace this replica's data. Default: the links stop with an
	// alarm, and the data stays.
	AcceptEmptyPrimary bool
	// DropPrevious deletes the data that a full sync replaced. Default: it is kept in Dir/previous until the next one.
	DropPrevious bool
	// StateMachine opens a shard's state machine in place of Pebble. [Node.Do] is not available then.
	StateMachine func(MachineEnv) (StateMachine, error)
	// Format is the newest storage format that the state machine loads. It is set for Pebble; 0 takes any.
	Format uint32
	// Dial connects to the primary. Default: TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Backoff says how long a link waits between attempts.
	Backoff Backoff
	// FS holds the data. Default: the machine's.
	FS vfs.FS
	// Logger may be nil, which is silent.
	Logger hclog.Logger
}

// validate reports the faults of what only a replica has.
func (o *Options) validate() error {
	if o.InboxBytes < 0 || o.SyncRate < 0 {
		return fmt.Errorf("inbox %d, sync rate %d: neither may be less than 0", o.InboxBytes, o.SyncRate)
	}
	return nil
}

// Open opens the data directory, recovers its shards, if it has any yet, and starts to follow the primary, which need not
// be there. A new directory becomes a replica's; one that has a role keeps it, so a node that was promoted stays a
// primary, and one that was told to follow another goes on with that. Close must follow, unless there is an error: then
// nothing stays open or locked.
func Open(o Options) (*Node, error) {
	no := node.Options{
		Role: nodestore.Replica, Primary: o.Primary, Dir: o.Dir, ReplicaID: o.ReplicaID, Announce: o.Announce, Cluster: o.Cluster,
		ReplicationListen: o.ReplicationListen, ReplicationPortBase: o.ReplicationPortBase, AnnounceHost: o.AnnounceHost, AnnouncePortBase: o.AnnouncePortBase,
		User: o.User, Password: o.Password, Fsync: o.Fsync, Memory: o.Memory, BackgroundCPU: o.BackgroundCPU,
		BacklogMemory: o.BacklogMemory, BacklogKeep: o.BacklogKeep, BacklogDisk: o.BacklogDisk, RefuseStale: o.RefuseStale, DropPrevious: o.DropPrevious,
		StateMachine: o.StateMachine, Format: o.Format, Dial: o.Dial, FS: o.FS, Logger: o.Logger, Serve: o.Serve,
		Follow: Follow(FollowerOptions{
			User: o.User, Password: o.Password, InboxBytes: o.InboxBytes, SyncRate: o.SyncRate, AcceptEmptyPrimary: o.AcceptEmptyPrimary,
			SurplusLimit: o.SurplusLimit, Backoff: o.Backoff, Dial: o.Dial,
		}),
	}
	no.EnsureDefaults()
	if err := errors.Join(o.validate(), no.Validate()); err != nil {
		return nil, fmt.Errorf("replica: %w", err)
	}
	n, err := node.Open(no)
	if err != nil {
		return nil, fmt.Errorf("replica: %w", err)
	}
	return &Node{n}, nil
}
