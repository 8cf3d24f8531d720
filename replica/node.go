package replica

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
	"github.com/understudy-kv/understudy/internal/version"
	"github.com/understudy-kv/understudy/wire"
)

const (
	keepEvery   = 50 * time.Millisecond
	rateSamples = 10 // one a second: the write rate is told over that time
)

// Node is a running replica. All methods may be called from any goroutine.
type Node struct {
	opts     Options
	started  time.Time
	data     *dataDir
	keyspace *keyspace.Keyspace // nil with a state machine of the program's own
	follower *Follower
	quit     chan struct{}
	once     sync.Once
	done     sync.WaitGroup

	mu struct {
		sync.Mutex
		shards []*shard.Shard // of the data set that readers are to see
		shown  bool           // they see it: every shard has data
		rates  map[*shard.Shard][]rateSample
	}

	stale struct {
		sync.Mutex
		told keyspace.Stale // what the keyspace was told last; only with Options.RefuseStale
	}
}

type rateSample struct {
	at     time.Time
	offset uint64
}

// errNoKeyspace is what Do returns where there are no commands.
var errNoKeyspace = errors.New("replica: commands need the built-in state machine; this node was opened with Options.StateMachine")

// ReplyError is an error reply, as a client would get it: its first word is the kind, such as READONLY or LOADING. Test
// with errors.As.
type ReplyError = resp.ReplyError

// Do executes one command that reads, such as Do(ctx, "GET", "key"), and returns its reply: nil, a string, an int64, a
// float64, a bool or a []any of replies. An error reply is the error, a [ReplyError]: READONLY for a command that writes,
// LOADING before the first full sync is complete; with Options.RefuseStale also LOADING while a full sync runs, and
// MASTERDOWN while a link is down. ctx is looked at before the command begins: one that has begun is waited for.
func (n *Node) Do(ctx context.Context, args ...any) (any, error) {
	if n.keyspace == nil {
		return nil, errNoKeyspace
	}
	return n.keyspace.Do(ctx, args...)
}

// ID is the identity of the data directory.
func (n *Node) ID() wire.ID { return n.data.store.NodeID() }

// ReplicaID is the identity under which the primary knows this replica.
func (n *Node) ReplicaID() wire.ID { return n.opts.ReplicaID }

// Primary is the address that is followed, "host:port-base".
func (n *Node) Primary() string {
	return net.JoinHostPort(n.follower.host, strconv.Itoa(n.follower.base))
}

// Keyspace reads from the shards; nil with a state machine of the program's own.
func (n *Node) Keyspace() *keyspace.Keyspace { return n.keyspace }

// Shards are the shards of the data set that readers see, by id; none before the primary was heard for the first time.
// They change when the primary's shard count does. The slice must not be changed.
func (n *Node) Shards() []*shard.Shard { return n.data.store.Shards() }

// Follower is the node's links.
func (n *Node) Follower() *Follower { return n.follower }

// Lag is how far the node is behind: the worst shard's figures.
func (n *Node) Lag() Lag { return n.follower.Lag() }

// WaitCaughtUp returns once every shard has applied, and readers see, everything that the primary had when the call was
// made; see [Follower.WaitCaughtUp].
func (n *Node) WaitCaughtUp(ctx context.Context) error {
	if err := n.follower.WaitCaughtUp(ctx); err != nil {
		return err
	}
	n.refresh()
	return nil
}

// Status is a report made now.
func (n *Node) Status() status.Node {
	out := status.Node{
		Role: "replica", ID: n.ID().String(), Version: version.String(), Uptime: time.Since(n.started).Seconds(),
		Replication: n.Primary(), Cluster: n.opts.Cluster, Replica: n.opts.ReplicaID.String(), Shards: n.follower.Status(),
	}
	// Who is told that a shard streams can read from it.
	n.refresh()
	n.mu.Lock()
	out.Ready = n.mu.shown
	n.mu.Unlock()
	shown := n.Shards()
	for i := range out.Shards {
		s := &out.Shards[i]
		if s.Error != "" && out.Error == "" {
			out.Error, out.Ready = s.Error, false
		}
		if i < len(shown) {
			s.Log = n.logStatus(shown[i])
		}
	}
	return out
}

func (n *Node) logStatus(s *shard.Shard) status.Log {
	log := s.Log()
	b := log.Bounds()
	out := status.Log{
		Oldest: b.Oldest, MemoryFirst: b.MemoryFirst, Published: b.Published, Next: b.Next, Durable: b.Durable,
		Bytes: b.Bytes, MemoryBytes: b.MemoryBytes, MemoryLimit: n.opts.BacklogMemory, Keep: n.opts.BacklogKeep, Disk: n.opts.BacklogDisk,
		Seconds: -1, SyncPolicy: string(s.Fsync()),
	}
	n.mu.Lock()
	samples := n.mu.rates[s]
	n.mu.Unlock()
	if len(samples) > 0 && samples[0].offset < b.Published {
		// No bytes are in it when the log was replaced since.
		if took, bytes := time.Since(samples[0].at).Seconds(), log.BytesFrom(samples[0].offset); took > 0 && bytes > 0 {
			out.WriteRate = float64(bytes) / took
			out.Seconds = float64(b.Bytes) / out.WriteRate
		}
	}
	return out
}

// setShards changes the data set that readers are to see. They see it at once if every shard has data, and otherwise as
// soon as that is so: a data set of which one shard is filled and another is not is none (pitfall 20).
func (n *Node) setShards(shards []*shard.Shard) {
	n.mu.Lock()
	n.mu.shards, n.mu.shown = shards, false
	n.mu.rates = map[*shard.Shard][]rateSample{}
	n.mu.Unlock()
	if !n.reveal() && n.keyspace != nil {
		n.keyspace.SetShards(nil)
	}
}

// reveal shows the data set if it is complete, and reports whether readers see it.
func (n *Node) reveal() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.shown {
		return true
	}
	for _, s := range n.mu.shards {
		if s.Position().IsZero() {
			return false
		}
	}
	if len(n.mu.shards) == 0 {
		return false
	}
	if n.keyspace != nil {
		n.keyspace.SetShards(n.mu.shards)
	}
	n.mu.shown = true
	return true
}

// keep is the keeper.
func (n *Node) keep() {
	ticker := time.NewTicker(keepEvery)
	defer ticker.Stop()
	var sampled time.Time
	for {
		select {
		case <-ticker.C:
		case <-n.quit:
			return
		}
		n.refresh()
		if time.Since(sampled) >= time.Second {
			sampled = time.Now()
			n.sample(sampled)
		}
	}
}

// refresh has readers see what the links have come to: a data set that is complete now, and whether it may be old.
func (n *Node) refresh() {
	n.reveal()
	if !n.opts.RefuseStale || n.keyspace == nil {
		return
	}
	n.stale.Lock()
	defer n.stale.Unlock()
	if now := n.staleness(); now != n.stale.told {
		n.keyspace.SetStale(now)
		n.stale.told = now
	}
}

// staleness is what reads are told while old data is refused.
func (n *Node) staleness() keyspace.Stale {
	switch {
	case n.follower.Streaming():
		return keyspace.Fresh
	case n.follower.Syncing():
		return keyspace.Syncing
	}
	return keyspace.LinkDown
}

func (n *Node) sample(now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.mu.shards {
		samples := append(n.mu.rates[s], rateSample{at: now, offset: s.Log().Published()})
		if len(samples) > rateSamples {
			samples = append([]rateSample(nil), samples[1:]...)
		}
		n.mu.rates[s] = samples
	}
}

// Close ends the links and stops every shard cleanly. It may be called more than once.
func (n *Node) Close() (err error) {
	n.once.Do(func() {
		close(n.quit)
		n.done.Wait()
		if n.follower != nil {
			for _, s := range n.Shards() {
				s.PauseIngest(0) // a link waits for what it has begun to apply
			}
			err = n.follower.Close()
		}
		if n.keyspace != nil {
			n.keyspace.SetShards(nil)
		}
		if n.data != nil {
			err = errors.Join(err, n.data.close())
		}
	})
	return err
}
