package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/node"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/internal/store"
	"github.com/understudy-kv/understudy/primary"
	"github.com/understudy-kv/understudy/replica"
)

// portBase is the replication port of shard 0 on every host.
const portBase = 7000

// host is a machine: a disk, a name, and at most one process.
type host struct {
	world *world
	id    int
	name  string
	dark  atomic.Bool // without power: its peers hear nothing

	// What follows belongs to the driver.
	disk   *vfs.MemFS // what the next process finds
	boot   int
	run    *incarnation // nil while no process runs
	first  string       // what the first process followed, "" for a primary
	life   int          // processes so far
	begins bool         // the schedule did something that lets a generation begin here
}

// incarnation is one process on a host.
type incarnation struct {
	world *world
	host  *host
	disk  *disk
	open  atomic.Pointer[node.Node] // nil until it is open
	began time.Time
	dead  atomic.Bool   // it was killed, or its machine lost power: nothing of it counts any more
	gone  chan struct{} // closed with dead
	once  sync.Once
	left  *vfs.MemFS // what the crash left on the disk; valid behind gone
}

func (h *host) address() string { return net.JoinHostPort(h.name, fmt.Sprint(portBase)) }

// options are those of every process: all sizes are small, so that bounds are met.
func (h *host) options(i *incarnation) node.Options {
	w := h.world
	rng := rand.New(rand.NewPCG(w.sc.Seed, uint64(h.id)<<32+uint64(h.life)))
	var mu sync.Mutex
	o := node.Options{
		Dir: "/" + h.name, Role: store.Primary, Shards: w.sc.Shards, Primary: h.first,
		Listen:       func(s int) (net.Listener, error) { return w.net.listen(i, portBase+s) },
		AnnounceHost: h.name, ReplicationPortBase: portBase, Announce: h.name + ":6000",
		Fsync: w.sc.Fsync, Memory: 1, BacklogMemory: 64 << 10, BootID: fmt.Sprint("boot-", h.boot),
		Serve: primary.Serve(primary.ServerOptions{ReconnectWindow: w.sc.window(), Adopt: i.adopt}),
		Follow: replica.Follow(replica.FollowerOptions{
			InboxBytes: inboxBytes, Adopt: i.adopt,
			Dial: func(ctx context.Context, to string) (net.Conn, error) { return w.net.dial(ctx, i, to) },
			Jitter: func() float64 {
				mu.Lock()
				defer mu.Unlock()
				return rng.Float64()
			},
		}),
		Dial: func(ctx context.Context, to string) (net.Conn, error) { return w.net.dial(ctx, i, to) },
		FS:   i.disk,
	}
	if w.sc.Small {
		o.BacklogMemory, o.BacklogKeep, o.BacklogDisk = smallMemory, smallKeep, smallDisk
	}
	if rng.IntN(2) == 0 { // every value is left in the log, and a flush may write everything, into many tables
		o.Tuning = engine.Tuning{Logged: 1, WholeFlush: 1, Staged: 1}
	}
	if h.first != "" {
		o.Role, o.Shards = store.Replica, 0
	}
	if w.log != nil {
		o.Logger = w.log.Named(h.name)
	}
	return o
}

// Sizes in bytes.
const (
	inboxBytes  = 32 << 10
	smallMemory = 8 << 10
	smallKeep   = 8 << 10
	smallDisk   = 64 << 10
)

// start starts a process. An error is what the node said.
func (h *host) start() error {
	i := &incarnation{world: h.world, host: h, disk: newDisk(h.disk), began: time.Now(), gone: make(chan struct{})}
	i.disk.onCrash = func() {}
	if h.dark.Load() {
		h.dark.Store(false)
		h.world.net.refuse(h.id)
	}
	h.life++
	n, err := node.Open(h.options(i))
	if err != nil {
		i.dead.Store(true)
		return err
	}
	i.open.Store(n)
	h.run = i
	return nil
}

// die ends the process at this very moment, on whatever goroutine: nothing that it does from here on reaches anybody.
func (i *incarnation) die(power bool, percent int, rng *rand.Rand) {
	i.once.Do(func() {
		i.dead.Store(true)
		if power {
			i.host.dark.Store(true)
			i.left = i.disk.unplugged(percent, rng)
		} else {
			i.left = i.disk.killed()
		}
		i.world.net.leave(i, power)
		close(i.gone)
	})
}

// shards are those of the node's data set that readers see, nil for a dead process.
func (i *incarnation) shards() []*shard.Shard {
	if i == nil || i.dead.Load() || i.open.Load() == nil {
		return nil
	}
	return i.node().Shards()
}

// node is the open node.
func (i *incarnation) node() *node.Node { return i.open.Load() }
