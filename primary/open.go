package primary

import (
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/internal/node"
	"github.com/understudy-kv/understudy/internal/store"
)

// Options configure a primary. Dir is required; everything else has a default.
type Options struct {
	// Dir is the data directory. It is made if need be, and locked.
	Dir string
	// Follow lets the node become a replica, by [Node.Follow]: replica.Follow(replica.FollowerOptions{}). Default: it cannot.
	Follow node.FollowFunc
	// Announce is where clients reach this node, "host:port"; AnnounceHost and AnnouncePortBase are where replicas do, as
	// other nodes are told. Defaults: they are not told, and the addresses that are listened on.
	Announce         string
	AnnounceHost     string
	AnnouncePortBase int
	// Shards is the number of shards, 1 to 256. Default: what the directory has; for a new one, the number of cores.
	Shards int
	// ReplicationListen is the host at which replicas are served. Default 127.0.0.1.
	ReplicationListen string
	// ReplicationPortBase is the port of shard 0; shard i listens on base + i. Default: a free range, which
	// [Node.ReplicationAddr] tells, and which is another one at each start.
	ReplicationPortBase int
	// Cluster is a name that replicas must have too.
	Cluster string
	// Fsync is "always", "everysec" (the default) or "no": when the log is synced.
	Fsync string
	// Memory is what the node may use for caches and buffers, in bytes, beside the backlogs. Of all but 16 MiB, or a quarter if
	// that is less, five eighths are for memtables, an eighth is for Pebble's blocks, and a quarter for groups, connections and the
	// garbage collector. Default 512 MiB.
	Memory int64
	// BackgroundCPU is how many processors flushes and compactions take together, such as 0.5 or 2. They take more only while
	// somebody waits for them: a full sync, a stop, or writes that would have to wait. Default: half of the processors.
	BackgroundCPU float64
	// BacklogMemory, BacklogKeep and BacklogDisk bound each shard's backlog, in bytes. Defaults 16 MiB, 128 MiB, 2 GiB.
	BacklogMemory, BacklogKeep, BacklogDisk int64
	// ReconnectWindow is how long a replica that went away keeps its slot. Default 60 s.
	ReconnectWindow time.Duration
	// MaxReplicas is how many replicas each shard serves. Default 64.
	MaxReplicas int
	// Authenticate tells why a replica's credentials are no good. Default: everybody may replicate.
	Authenticate func(user string, password []byte) error
	// StateMachine opens a shard's state machine in place of Pebble. [Node.Do] is not available then; use [Node.Propose].
	StateMachine func(MachineEnv) (StateMachine, error)
	// Format is the storage format of the state machine's checkpoints, which replicas compare with what they can load.
	// It is set for Pebble; 0 does not matter.
	Format uint32
	// FS holds the data. Default: the machine's.
	FS vfs.FS
	// Logger may be nil, which is silent.
	Logger hclog.Logger
}

// Open opens the data directory, recovers its shards, and serves replicas. A new directory becomes a primary's; one that
// has a role keeps it, so a node that was told to follow goes on following. Close must follow, unless there is an error:
// then nothing stays open or locked. A damaged log is a *[backlog.CorruptError], which names the file, the byte and the
// ways out.
func Open(o Options) (*Node, error) {
	n, err := node.Open(node.Options{
		Role: store.Primary, Dir: o.Dir, Shards: o.Shards, ReplicationListen: o.ReplicationListen, ReplicationPortBase: o.ReplicationPortBase,
		Announce: o.Announce, AnnounceHost: o.AnnounceHost, AnnouncePortBase: o.AnnouncePortBase, Cluster: o.Cluster, Fsync: o.Fsync,
		Memory: o.Memory, BackgroundCPU: o.BackgroundCPU, BacklogMemory: o.BacklogMemory, BacklogKeep: o.BacklogKeep, BacklogDisk: o.BacklogDisk,
		StateMachine: o.StateMachine, Format: o.Format, FS: o.FS, Logger: o.Logger, Follow: o.Follow,
		Serve: Serve(ServerOptions{ReconnectWindow: o.ReconnectWindow, MaxReplicas: o.MaxReplicas, Authenticate: o.Authenticate}),
	})
	if err != nil {
		return nil, fmt.Errorf("primary: %w", err)
	}
	return &Node{n}, nil
}
