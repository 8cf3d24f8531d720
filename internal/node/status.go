package node

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/understudy-kv/understudy/internal/resp"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/internal/status"
	"github.com/understudy-kv/understudy/internal/store"
	"github.com/understudy-kv/understudy/internal/version"
	"github.com/understudy-kv/understudy/slottable"
)

// counts are what a follower has counted on one shard.
type counts struct {
	fullSyncs, refusals map[string]uint64
	resumes, rewinds    uint64
}

func (c *counts) add(s *status.Shard) {
	c.fullSyncs, c.refusals = sum(c.fullSyncs, s.FullSyncs), sum(c.refusals, s.Refusals)
	c.resumes += s.Resumes
	c.rewinds += s.Rewinds
}

// sum adds b to a copy of a.
func sum(a, b map[string]uint64) map[string]uint64 {
	out := maps.Clone(a)
	if out == nil {
		out = map[string]uint64{}
	}
	for k, n := range b {
		out[k] += n
	}
	return out
}

// Status is a report made now. A shard's counters are those of the sessions that it served and of those that it had with
// primaries, together, since the process started.
func (n *Node) Status() status.Node {
	n.mu.Lock()
	role, primary, follower := n.mu.role, n.mu.primary, n.mu.follower
	var handover *status.Failover
	if n.mu.failover != nil {
		copied := *n.mu.failover
		if n.mu.running != nil && copied.Hold == 0 {
			copied.Hold = float64(time.Since(n.mu.running.began).Microseconds()) / 1000
		}
		handover = &copied
	}
	n.mu.Unlock()
	out := status.Node{
		Role: string(role), ID: n.ID().String(), Version: version.String(), Uptime: time.Since(n.started).Seconds(),
		Replication: n.replicationRange(), Primary: primary, Cluster: n.opts.Cluster, Failover: handover,
	}
	for _, id := range n.Path() {
		out.Path = append(out.Path, id.String())
	}
	if role == store.Replica {
		out.Replica = n.opts.ReplicaID.String()
		out.Mixed = n.data.Mixed()
	}
	var links []status.Shard
	if follower != nil {
		links = follower.Status()
	}
	shards := n.Shards()
	server := n.server.Load()
	for i := range max(len(shards), len(links)) {
		s := status.Shard{Shard: i, Position: "none", Lineage: []string{}, FullSyncs: map[string]uint64{}, Refusals: map[string]uint64{}}
		if server != nil && i < len(server.shards) {
			s = server.Status(i)
		} else if i < len(shards) {
			s = shardStatus(shards[i])
		}
		if i < len(shards) {
			s.Log.Keep, s.Log.Disk = shards[i].Log().Limits()
			s.Log.MemoryLimit, s.Log.SyncPolicy = n.opts.BacklogMemory, string(shards[i].Fsync())
		}
		var total counts
		total.add(&s)
		n.mu.Lock()
		if past, ok := n.mu.past[i]; ok {
			total.add(&status.Shard{FullSyncs: past.fullSyncs, Refusals: past.refusals, Resumes: past.resumes, Rewinds: past.rewinds})
		}
		n.mu.Unlock()
		if i < len(links) {
			l := links[i]
			total.add(&l)
			s.Link, s.Position, s.Offset, s.Lineage = l.Link, l.Position, l.Offset, l.Lineage
			if l.Error != "" {
				s.Error = l.Error
			}
		}
		s.FullSyncs, s.Refusals, s.Resumes, s.Rewinds = total.fullSyncs, total.refusals, total.resumes, total.rewinds
		if s.Error != "" && out.Error == "" {
			out.Error = s.Error
		}
		out.Shards = append(out.Shards, s)
	}
	// Behind the figures: who is told that a shard has data, or streams, or where it is, can read from it.
	n.refresh()
	n.mu.Lock()
	out.Ready = n.mu.shown && out.Error == ""
	n.mu.Unlock()
	if err := n.unserved(); err != nil && out.Error == "" {
		out.Error = err.Error()
	}
	return out
}

// shardStatus is a shard that nobody serves.
func shardStatus(s *shard.Shard) status.Shard {
	at, b := s.Position(), s.Log().Bounds()
	out := status.Shard{
		Shard: s.ID(), Unsettled: !s.Settled(), Position: at.String(), Offset: at.Offset, Lineage: shard.LineageStrings(s.Lineage()),
		Log: status.Log{
			Oldest: b.Oldest, MemoryFirst: b.MemoryFirst, Published: b.Published, Next: b.Next, Durable: b.Durable,
			Bytes: b.Bytes, MemoryBytes: b.MemoryBytes, Seconds: -1,
		},
	}
	if err := s.Err(); err != nil {
		out.Error = err.Error()
	}
	return out
}

// replicationRange is "host:first-last" of the ports that replicas are served on.
func (n *Node) replicationRange() string {
	address := n.ReplicationAddr()
	server := n.server.Load()
	if address == "" || server == nil {
		return address
	}
	_, base, err := SplitAddress(address)
	if err != nil {
		return address
	}
	return address + "-" + itoa(base+len(server.shards)-1)
}

// errNoKeyspace is what Do returns where there are no commands.
var errNoKeyspace = errors.New("node: commands need the built-in state machine; this node was opened with Options.StateMachine, use Propose")

// ReplyError is an error reply, as a client would get it: its first word is the kind, such as WRONGTYPE, READONLY or
// LOADING. Test with errors.As.
type ReplyError = resp.ReplyError

// Do executes one command, such as Do(ctx, "SET", "key", "value"), and returns its reply: nil, a string, an int64, a
// float64, a bool or a []any of replies. An error reply is the error, a [ReplyError]. ctx is looked at before the command
// begins: one that has begun is waited for. Transactions and the commands of a connection are not available.
func (n *Node) Do(ctx context.Context, args ...any) (any, error) {
	if n.keyspace == nil {
		return nil, errNoKeyspace
	}
	return n.keyspace.Do(ctx, args...)
}

// WaitAcked returns how many replicas have acked everything before offsets[i] on every shard i, as soon as that is at
// least replicas, or ctx ends; 0 where nobody is served. The offset of a [Node.Propose] is that of its position.
func (n *Node) WaitAcked(ctx context.Context, offsets []uint64, replicas int, level slottable.Level) int {
	s := n.server.Load()
	if s == nil {
		return 0
	}
	return s.WaitAcked(ctx, offsets, replicas, level)
}
