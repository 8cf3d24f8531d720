package node

import (
	"context"
	"errors"
	"net"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/keyspace"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/internal/status"
	"github.com/understudy-kv/understudy/internal/store"
	"github.com/understudy-kv/understudy/wire"
)

// keepEvery is how often the keeper looks.
const keepEvery = 100 * time.Millisecond

// Node is an open node. All methods may be called from any goroutine.
//
// Lock order: roleMu, then mu. roleMu is held through a change of role, IO and waiting for links included; the links and
// the shards' loops never take it. mu is held for moments, and never during IO.
type Node struct {
	opts     Options
	started  time.Time
	data     *dataDir
	keyspace *keyspace.Keyspace // nil with a state machine of the program's own
	quit     chan struct{}
	once     sync.Once
	done     sync.WaitGroup

	server atomic.Pointer[serving] // nil while nobody is served
	roleMu roleLock                // changes of role, one after the other
	void   wire.ID                 // the last handover that was taken back here; guarded by roleMu

	mu struct {
		sync.Mutex
		role     store.Role
		primary  string // what a replica follows
		follower Follower
		past     map[int]counts // of followers that were stopped, by shard
		shards   []*shard.Shard // of the data set that readers are to see
		shown    bool           // they see it: every shard has data
		base     int            // port of shard 0, 0 while it is not known
		unserved error          // why a data set is not served to replicas
		closed   bool

		keep, disk int64 // the backlog's limits
		fsync      shard.Fsync
		window     *time.Duration   // the reconnect window, if it was changed
		running    *failover        // nil while no handover runs
		failover   *status.Failover // the last or running one, nil before the first
		stale      keyspace.Stale
	}
}

// serving is a Server with its shards.
type serving struct {
	Server
	shards []*shard.Shard
}

// Open opens the data directory, recovers its shards, and takes up the role that it has, or Options.Role in a new one.
// Close must follow, unless there is an error: then nothing stays open or locked.
func Open(o Options) (_ *Node, err error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	n := &Node{opts: o, started: time.Now(), quit: make(chan struct{}), roleMu: newRoleLock()}
	n.mu.keep, n.mu.disk, n.mu.fsync, n.mu.base = o.BacklogKeep, o.BacklogDisk, shard.Fsync(o.Fsync), o.ReplicationPortBase
	n.mu.past = map[int]counts{}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if err := n.openDir(); err != nil {
		return nil, err
	}
	role, primary := n.data.store.Role()
	n.mu.role, n.mu.primary = role, primary
	if o.ReplicaID.IsZero() {
		n.opts.ReplicaID = n.data.store.ReplicaID()
	}
	if n.keyspace != nil {
		n.keyspace.SetReadOnly(role != store.Primary)
	}
	if err := n.choosePorts(); err != nil {
		return nil, err
	}
	n.setShards(n.data.store.Shards())
	if err := n.unserved(); err != nil && role == store.Primary {
		return nil, err
	}
	if h := n.data.store.Handover(); h != nil {
		err = n.resumeHandover(*h)
	} else if role == store.Replica {
		err = n.follow(primary)
	}
	if err != nil {
		return nil, err
	}
	n.refresh()
	// The keeper decides what readers may see, and opens replication ports that could not be opened. It is ended by quit;
	// Close waits for it.
	n.done.Go(n.keep)
	return n, nil
}

// openDir opens the store, with the caches for the shards that it has or is to have.
func (n *Node) openDir() error {
	o := n.opts
	role, shards, err := store.Peek(o.FS, o.Dir)
	if err != nil {
		return err
	}
	if role == "" {
		role = o.Role
	}
	asked := 0
	if role == store.Primary {
		if asked = o.Shards; asked != 0 {
			shards = asked
		} else if shards == 0 {
			shards = min(runtime.GOMAXPROCS(0), store.MaxShards)
			asked = shards
		}
	}
	if o.ReplicationPortBase != 0 && shards > 0 {
		if err := CheckPorts(o.ReplicationPortBase, shards); err != nil {
			return err
		}
	}
	n.data = &dataDir{show: n.setShards}
	machines := shard.Factory(o.StateMachine)
	if machines == nil {
		n.opts.Format = engine.Format
		n.keyspace = keyspace.New(keyspace.Options{Logger: o.Logger.Named("keyspace")})
		n.data.newEngines = func(shards int) *store.Engines {
			return store.NewEngines(o.FS, o.Memory, shards, o.BackgroundCPU, o.Tuning, o.Logger.Named("engine"))
		}
		machines = n.data.factory
	}
	if shards > 0 {
		n.data.mu.engines = n.data.prepare(shards)
	}
	n.data.store, err = store.Open(store.Options{Dir: o.Dir, Shards: asked, Role: o.Role, Primary: o.Primary, KeepPrevious: !o.DropPrevious, Shard: shard.Options{
		FS: o.FS, Open: machines, Fsync: shard.Fsync(o.Fsync), Logger: o.Logger.Named("shard"), BootID: o.BootID, Now: o.Now,
		BacklogMemory: o.BacklogMemory, BacklogKeep: o.BacklogKeep, BacklogDisk: o.BacklogDisk,
	}})
	if err != nil {
		closeEngines(n.data.mu.engines)
		n.data = nil
	}
	return err
}

// ID is the identity of the data directory.
func (n *Node) ID() wire.ID { return n.data.store.NodeID() }

// ReplicaID is the identity under which a primary knows this node.
func (n *Node) ReplicaID() wire.ID { return n.opts.ReplicaID }

// Role is what the node is now.
func (n *Node) Role() store.Role {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.role
}

// Primary is what the node follows, "host:port-base"; "" on a primary.
func (n *Node) Primary() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.primary
}

// Keyspace routes commands to the shards; nil with a state machine of the program's own.
func (n *Node) Keyspace() *keyspace.Keyspace { return n.keyspace }

// Shards are the shards of the node's data set, by id; none before a replica heard its primary for the first time. They
// change when the primary's shard count does. The slice must not be changed.
func (n *Node) Shards() []*shard.Shard { return n.data.store.Shards() }

// Server is the half that serves replicas, nil while nobody is served.
func (n *Node) Server() Server {
	if s := n.server.Load(); s != nil {
		return s.Server
	}
	return nil
}

// Follower is the half that follows, nil on a primary.
func (n *Node) Follower() Follower {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.follower
}

// Path are the node ids from the root of the chain down to this node, as far as known.
func (n *Node) Path() []wire.ID {
	var parents []wire.ID
	if f := n.Follower(); f != nil {
		parents = f.Path()
	}
	return append(append(make([]wire.ID, 0, len(parents)+1), parents...), n.ID())
}

// WaitCaughtUp returns once every shard has applied, and readers see, everything that the primary had when the call was
// made. On a primary it returns at once.
func (n *Node) WaitCaughtUp(ctx context.Context) error {
	f := n.Follower()
	if f == nil {
		return nil
	}
	if err := f.WaitCaughtUp(ctx); err != nil {
		return err
	}
	n.refresh()
	return nil
}

// Close ends the links and the sessions of replicas, then stops every shard cleanly. What was queued is done. The error
// tells what could not be stopped cleanly: the next start replays the log. It may be called more than once.
func (n *Node) Close() (err error) {
	n.once.Do(func() {
		n.mu.Lock()
		n.mu.closed = true // before the wait: a handover that ends now leaves the role as it is on disk
		n.mu.Unlock()
		close(n.quit)
		n.done.Wait()
		n.roleMu.Lock()
		defer n.roleMu.Unlock()
		n.mu.Lock()
		follower := n.mu.follower
		n.mu.Unlock()
		var errs []error
		if follower != nil {
			errs = append(errs, n.stopLinks(follower, false))
		}
		if s := n.server.Swap(nil); s != nil {
			errs = append(errs, s.Close())
		}
		if n.keyspace != nil {
			n.keyspace.SetShards(nil)
		}
		if n.data != nil {
			errs = append(errs, n.data.close())
		}
		err = errors.Join(errs...)
	})
	return err
}

// stopLinks ends a follower. A link waits for what it has begun to apply.
func (n *Node) stopLinks(f Follower, drain bool) error {
	for _, s := range n.Shards() {
		s.PauseIngest(0)
	}
	return f.Stop(drain)
}

// hostPort joins an address.
func hostPort(host string, port int) string { return net.JoinHostPort(host, itoa(port)) }

func itoa(n int) string { return strconv.Itoa(n) }
