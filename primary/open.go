package primary

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/keyspace"
	"github.com/understudy-kv/understudy/internal/ports"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/internal/store"
)

// Defaults of [Options].
const (
	DefaultMemory            = 256 << 20 // bytes
	DefaultReplicationListen = "127.0.0.1"
)

// Options configure a primary. Dir is required; everything else has a default.
type Options struct {
	// Dir is the data directory. It is made if need be, and locked.
	Dir string
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
	// Memory is what the node may use for caches and buffers, in bytes, beside the backlogs: half of it goes to Pebble's
	// caches and memtables, half is left to groups, connections and the garbage collector. Default 256 MiB.
	Memory int64
	// BacklogMemory, BacklogKeep and BacklogDisk bound each shard's backlog, in bytes. Defaults 64 MiB, 128 MiB, 1 GiB.
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

// EnsureDefaults fills in what is zero and does not depend on the data directory.
func (o *Options) EnsureDefaults() {
	if o.ReplicationListen == "" {
		o.ReplicationListen = DefaultReplicationListen
	}
	if o.Fsync == "" {
		o.Fsync = string(shard.FsyncEverySec)
	}
	if o.Memory == 0 {
		o.Memory = DefaultMemory
	}
	b := backlog.Options{Memory: o.BacklogMemory, Keep: o.BacklogKeep, Disk: o.BacklogDisk}
	b.EnsureDefaults()
	o.BacklogMemory, o.BacklogKeep, o.BacklogDisk = b.Memory, b.Keep, b.Disk
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
}

// Validate reports every fault of the options.
func (o *Options) Validate() error {
	var errs []error
	if o.Dir == "" {
		errs = append(errs, errors.New("primary: Dir is empty: give the data directory"))
	}
	if o.Shards < 0 || o.Shards > store.MaxShards {
		errs = append(errs, fmt.Errorf("primary: %d shards: the number must lie within 1 and %d", o.Shards, store.MaxShards))
	}
	if _, err := shard.ParseFsync(o.Fsync); err != nil {
		errs = append(errs, fmt.Errorf("primary: %w", err))
	}
	if o.ReplicationPortBase != 0 {
		if err := CheckPorts(o.ReplicationPortBase, max(o.Shards, 1)); err != nil {
			errs = append(errs, fmt.Errorf("primary: %w", err))
		}
	}
	if o.Memory < 0 {
		errs = append(errs, fmt.Errorf("primary: a memory of %d bytes is less than none", o.Memory))
	}
	return errors.Join(errs...)
}

// Open opens the data directory, recovers its shards, and serves replicas. Close must follow, unless there is an error:
// then nothing stays open or locked. A damaged log is a *[backlog.CorruptError], which names the file, the byte and the
// ways out.
func Open(o Options) (_ *Node, err error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	n := &Node{opts: o, started: time.Now()}
	n.backlog.keep, n.backlog.disk = o.BacklogKeep, o.BacklogDisk
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	shards, err := n.shardCount()
	if err != nil {
		return nil, err
	}
	if o.ReplicationPortBase != 0 {
		if err := CheckPorts(o.ReplicationPortBase, shards); err != nil {
			return nil, err
		}
	}
	machines := shard.Factory(o.StateMachine)
	if machines == nil {
		n.engines = store.NewEngines(o.FS, o.Memory/2, shards, o.Logger.Named("engine"))
		machines, n.opts.Format = n.engines.Open, engine.Format
	}
	n.store, err = store.Open(store.Options{Dir: o.Dir, Shards: shards, Shard: shard.Options{
		FS: o.FS, Writable: true, Open: machines, Fsync: shard.Fsync(o.Fsync), Logger: o.Logger.Named("shard"),
		BacklogMemory: o.BacklogMemory, BacklogKeep: o.BacklogKeep, BacklogDisk: o.BacklogDisk,
	}})
	if err != nil {
		return nil, err
	}
	if o.StateMachine == nil {
		n.keyspace = keyspace.New(keyspace.Options{Logger: o.Logger.Named("keyspace")})
		n.keyspace.SetShards(n.store.Shards())
	}
	return n, n.serve()
}

// shardCount is what the options say, or the directory, or the machine.
func (n *Node) shardCount() (int, error) {
	if n.opts.Shards != 0 {
		return n.opts.Shards, nil
	}
	have, err := store.ShardsIn(n.opts.FS, n.opts.Dir)
	if err != nil || have > 0 {
		return have, err
	}
	return min(runtime.GOMAXPROCS(0), store.MaxShards), nil
}

// serve opens the replication ports and starts the server.
func (n *Node) serve() error {
	listeners, err := n.listen()
	if err != nil {
		return err
	}
	shards := n.store.Shards()
	o := ServerOptions{
		Listeners: listeners, Node: n.store.NodeID(), Cluster: n.opts.Cluster, Format: n.opts.Format, FS: n.opts.FS, Dir: n.opts.Dir,
		ReconnectWindow: n.opts.ReconnectWindow, MaxReplicas: n.opts.MaxReplicas, Authenticate: n.opts.Authenticate,
		Limits: n.limits, Logger: n.opts.Logger.Named("replication"),
	}
	for _, s := range shards {
		o.Shards = append(o.Shards, s)
	}
	if n.server, err = NewServer(o); err != nil {
		errs := []error{err}
		for _, l := range listeners {
			errs = append(errs, l.Close())
		}
		return errors.Join(errs...)
	}
	return nil
}

// listen opens the ports. Somebody may take one of a free range before we do, so that is tried a few times.
func (n *Node) listen() ([]net.Listener, error) {
	host, count := n.opts.ReplicationListen, len(n.store.Shards())
	n.base = n.opts.ReplicationPortBase
	if n.base != 0 {
		return Listen(host, n.base, count)
	}
	var last error
	for range 10 {
		var err error
		if n.base, err = ports.Free(host, count); err != nil {
			return nil, err
		}
		listeners, err := Listen(host, n.base, count)
		if err == nil {
			return listeners, nil
		}
		last = err
	}
	return nil, last
}
