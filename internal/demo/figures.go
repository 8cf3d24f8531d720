package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/understudy-kv/understudy/internal/client"
	"github.com/understudy-kv/understudy/internal/status"
)

// figures are what both nodes say about themselves at about one moment. Counts are sums over shards; lag is the worst
// shard's.
type figures struct {
	primaryOffset, replicaOffset uint64
	fullSyncs, resumes           uint64 // as the primary counts them: one for each session of a shard
	behind                       uint64 // mutations, of the worst shard
	lagMillis                    float64
	streaming                    bool
	link                         struct{ mutations, bytes, snapshotBytes uint64 }
	retained, left               int64    // bytes of log that the primary keeps for the replica, and would keep beyond them
	primary                      []uint64 // offset of each shard
	replica                      []uint64
}

func (f figures) missing() uint64 { return f.primaryOffset - min(f.replicaOffset, f.primaryOffset) }

func (f figures) lag() string {
	return fmt.Sprintf("%d mutations, %.1f ms, in the worst shard", f.behind, f.lagMillis)
}

// read adds up what the nodes told.
func read(primary, replica status.Node) (f figures) {
	for _, s := range primary.Shards {
		f.primaryOffset += s.Offset
		f.primary = append(f.primary, s.Offset)
		f.resumes += s.Resumes
		for _, n := range s.FullSyncs {
			f.fullSyncs += n
		}
		for _, slot := range s.Slots {
			f.retained += slot.RetainedBytes
			f.left += slot.BytesLeft
		}
	}
	f.streaming = len(replica.Shards) > 0
	for _, s := range replica.Shards {
		f.replicaOffset += s.Offset
		f.replica = append(f.replica, s.Offset)
		if s.Link == nil {
			f.streaming = false
			continue
		}
		f.streaming = f.streaming && s.Link.State == "streaming"
		f.behind = max(f.behind, s.Link.LagMutations)
		f.lagMillis = max(f.lagMillis, s.Link.LagMillis)
		f.link.mutations += s.Link.Mutations
		f.link.bytes += s.Link.Bytes
		f.link.snapshotBytes += s.Link.SnapshotBytes
	}
	return f
}

// look asks both nodes.
func (s *story) look(ctx context.Context) (figures, error) {
	var nodes [2]status.Node
	for i, addr := range []string{s.replicaAddr, s.primaryAddr} {
		c, err := client.Dial(ctx, addr)
		if err != nil {
			return figures{}, err
		}
		nodes[i], err = c.Status()
		c.Close()
		if err != nil {
			return figures{}, err
		}
	}
	return read(nodes[1], nodes[0]), nil
}

// catchUp waits until the replica has, on every shard, what the primary had when catchUp was called, and at least so many
// sessions have resumed.
func (s *story) catchUp(ctx context.Context, resumes uint64) (figures, error) {
	first, err := s.look(ctx)
	if err != nil {
		return first, err
	}
	deadline := time.Now().Add(time.Minute)
	for {
		f, err := s.look(ctx)
		if err != nil {
			return f, err
		}
		if f.streaming && f.resumes >= resumes && reached(f.replica, first.primary) {
			return f, nil
		}
		if time.Now().After(deadline) {
			return f, fmt.Errorf("the replica has not caught up within a minute: it is %d mutations behind; its log is %s", f.missing(), s.replica.logPath)
		}
		if err := s.pause(ctx, 20*time.Millisecond); err != nil {
			return f, err
		}
	}
}

func reached(have, want []uint64) bool {
	if len(have) != len(want) {
		return false
	}
	for i := range want {
		if have[i] < want[i] {
			return false
		}
	}
	return true
}
