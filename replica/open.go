package replica

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/keyspace"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/internal/store"
	"github.com/understudy-kv/understudy/wire"
)

// DefaultMemory is the default of Options.Memory, in bytes.
const DefaultMemory = 256 << 20

// StateMachine is what a program brings in place of Pebble: it applies batches with their position, and opens snapshots
// that the primary's machine of the same kind made.
type StateMachine = shard.StateMachine

// MachineEnv is what a state machine is given when it is opened.
type MachineEnv = shard.Env

// Options configure a replica. Dir and Primary are required; everything else has a default.
type Options struct {
	// Dir is the data directory. It is made if need be, and locked.
	Dir string
	// Primary is "host:port-base" of the primary's replication ports. The host is resolved at each dial.
	Primary string
	// ReplicaID is the identity under which the primary knows this replica. Default: a UUID kept in Dir.
	ReplicaID wire.ID
	// Announce is where this node can be reached, "host:port", for the primary's status. May be empty.
	Announce string
	// Cluster must be the primary's cluster name.
	Cluster string
	// User and Password are what the primary asks for, if it does. They are sent as they are.
	User     string
	Password []byte
	// Fsync is "always", "everysec" (the default) or "no": when the log is synced, and so when acks say durable.
	Fsync string
	// Memory is what the node may use for caches and buffers, in bytes, beside backlogs and inboxes: half of it goes to
	// Pebble's caches and memtables. While a data set with another shard count is being fetched, both have theirs.
	// Default 256 MiB.
	Memory int64
	// BacklogMemory, BacklogKeep and BacklogDisk bound each shard's log, in bytes. Defaults 64 MiB, 128 MiB, 1 GiB.
	BacklogMemory, BacklogKeep, BacklogDisk int64
	// InboxBytes bounds the frames of each shard that wait to be applied. Default 32 MiB.
	InboxBytes int64
	// SyncRate limits full syncs, all shards together, in bytes per second. Default 0: no limit.
	SyncRate int64
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

// EnsureDefaults fills in what is zero and does not depend on the data directory.
func (o *Options) EnsureDefaults() {
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
		errs = append(errs, errors.New("replica: Dir is empty: give the data directory"))
	}
	if _, _, err := splitAddress(o.Primary); err != nil {
		errs = append(errs, fmt.Errorf("replica: primary %q: %w", o.Primary, err))
	}
	if _, err := shard.ParseFsync(o.Fsync); err != nil {
		errs = append(errs, fmt.Errorf("replica: %w", err))
	}
	if o.Memory < 0 || o.InboxBytes < 0 || o.SyncRate < 0 {
		errs = append(errs, fmt.Errorf("replica: memory %d, inbox %d, sync rate %d: none may be less than 0", o.Memory, o.InboxBytes, o.SyncRate))
	}
	return errors.Join(errs...)
}

// Open opens the data directory, recovers its shards, if it has any yet, and starts to follow the primary, which need not
// be there. Close must follow, unless there is an error: then nothing stays open or locked.
func Open(o Options) (_ *Node, err error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	n := &Node{opts: o, started: time.Now(), quit: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if err := n.openDir(); err != nil {
		return nil, err
	}
	if o.ReplicaID.IsZero() {
		n.opts.ReplicaID = n.data.store.ReplicaID()
	}
	n.follower, err = NewFollower(FollowerOptions{
		Primary: o.Primary, Store: n.data, ReplicaID: n.opts.ReplicaID, Nonce: n.data.store.Nonce(), Node: n.data.store.NodeID(),
		Announce: o.Announce, Cluster: o.Cluster, User: o.User, Password: o.Password, Format: n.opts.Format,
		InboxBytes: o.InboxBytes, SyncRate: o.SyncRate, AcceptEmptyPrimary: o.AcceptEmptyPrimary, Backoff: o.Backoff,
		Dial: o.Dial, Surplus: n.saveSurplus, FS: o.FS, Logger: o.Logger.Named("replication"),
	})
	if err != nil {
		return nil, err
	}
	// The keeper decides what readers may see and samples write rates. It is ended by quit; Close waits for it.
	n.done.Go(n.keep)
	return n, nil
}

// openDir opens the store, with the caches for the shards that it has.
func (n *Node) openDir() error {
	o := n.opts
	n.data = &dataDir{show: n.setShards}
	machines := shard.Factory(o.StateMachine)
	if machines == nil {
		n.opts.Format = engine.Format
		n.keyspace = keyspace.New(keyspace.Options{Logger: o.Logger.Named("keyspace")})
		n.keyspace.SetReadOnly(true)
		if o.RefuseStale {
			n.stale.told = keyspace.LinkDown
			n.keyspace.SetStale(n.stale.told)
		}
		n.data.newEngines = func(shards int) *store.Engines {
			return store.NewEngines(o.FS, o.Memory/2, shards, o.Logger.Named("engine"))
		}
		machines = n.data.factory
	}
	shards, err := store.ShardsIn(o.FS, o.Dir)
	if err != nil {
		return err
	}
	if shards > 0 {
		n.data.mu.engines = n.data.prepare(shards)
	}
	n.data.store, err = store.Open(store.Options{Dir: o.Dir, KeepPrevious: !o.DropPrevious, Shard: shard.Options{
		FS: o.FS, Open: machines, Fsync: shard.Fsync(o.Fsync), Logger: o.Logger.Named("shard"),
		BacklogMemory: o.BacklogMemory, BacklogKeep: o.BacklogKeep, BacklogDisk: o.BacklogDisk,
	}})
	if err != nil {
		closeEngines(n.data.mu.engines)
		n.data = nil
		return err
	}
	n.setShards(n.data.store.Shards())
	return nil
}
