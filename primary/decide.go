package primary

import (
	"fmt"
	"math"
	"slices"

	"github.com/understudy-kv/understudy/wire"
)

// Hold says what the log answered when a reader was opened at the replica's offset.
type Hold uint8

// The answers.
const (
	Held       Hold = iota // the stream can begin there
	Evicted                // the offset is older than the oldest frame that is kept
	Beyond                 // the offset has not been published
	Misaligned             // the offset lies inside a frame
)

var holdNames = [...]string{"held", "evicted", "beyond", "misaligned"}

func (h Hold) String() string { return holdNames[h] }

// Facts is what the primary knows at the one moment at which it decides. Everything in it was read while the reader
// that Hold speaks of was open: at the [Fork], which is the replica's own offset unless it has a surplus.
type Facts struct {
	Node          wire.ID   // this node
	Path          []wire.ID // where its data comes from: node ids from the root of the chain down to this node
	Following     bool      // it follows another node
	Streaming     bool      // ... and hears everything from it
	Mixed         bool      // ... and its shards may hold states of two histories
	Cluster       string
	Shard, Shards uint32 // of the port that was dialled; the shard count
	Format        uint32 // storage format of a snapshot's files, 0 if it does not matter
	Auth          error  // why the credentials are no good, or nil
	Lineage       wire.Lineage
	Published     uint64
	Unsettled     bool // the shard's data is no state of any one position
	Values        bool // the shard can tell what it has under keys, for a rewind
	Hold          Hold
}

// Action is what becomes of a handshake.
type Action uint8

// The actions.
const (
	Refuse Action = iota
	Resume
	FullSync
	Rewind
)

// Verdict is the answer to a HELLO.
type Verdict struct {
	Action   Action
	Position wire.Position // Resume: where the stream begins; Rewind: the fork
	Reason   wire.Reason   // FullSync
	Code     wire.Code     // Refuse
	Text     string        // Refuse: what is wrong, and the way out; FullSync: what exactly did not fit
}

// String gives the verdict on one line.
func (v Verdict) String() string {
	switch v.Action {
	case Resume:
		return "resume " + v.Position.String()
	case Rewind:
		return "rewind to " + v.Position.String()
	case FullSync:
		return fmt.Sprintf("fullsync %s: %s", v.Reason, v.Text)
	default:
		return fmt.Sprintf("refuse %s: %s", v.Code, v.Text)
	}
}

func refuse(code wire.Code, format string, args ...any) Verdict {
	return Verdict{Action: Refuse, Code: code, Text: fmt.Sprintf(format, args...)}
}

func fullSync(reason wire.Reason, format string, args ...any) Verdict {
	return Verdict{Action: FullSync, Reason: reason, Text: fmt.Sprintf(format, args...)}
}

// Decide answers a HELLO. A replica resumes if and only if its data is the beginning of the primary's history and the log
// holds its offset, at the boundary of a frame. One that has a surplus instead is to undo it, if it can. What can be refused
// is refused before any data moves. Whether another process holds the replica's slot, and whether there is room for one
// more, is for the slot table to say.
func Decide(h wire.Hello, f Facts) Verdict {
	if v, refused := admit(h, f); refused {
		return v
	}
	v := place(h, f)
	if v.Action == FullSync && h.Format != 0 && h.Format < f.Format {
		return refuse(wire.CodeVersion, "this primary's files have storage format %d and the replica can load up to %d; upgrade the replica", f.Format, h.Format)
	}
	return v
}

// admit says whether the replica is one of ours at all.
func admit(h wire.Hello, f Facts) (Verdict, bool) {
	switch {
	case h.Version != wire.Version:
		return refuse(wire.CodeVersion, "this primary speaks protocol version %d, the replica %d; run the same release on both", wire.Version, h.Version), true
	case f.Auth != nil:
		return refuse(wire.CodeAuth, "%v", f.Auth), true
	case h.Cluster != f.Cluster:
		return refuse(wire.CodeCluster, "this primary belongs to cluster %q, the replica to %q", f.Cluster, h.Cluster), true
	case h.Replica.IsZero() || h.Nonce.IsZero():
		return refuse(wire.CodeProtocol, "a HELLO must carry a replica id and a nonce"), true
	case !h.Node.IsZero() && h.Node == f.Node:
		return refuse(wire.CodeLoop, "this is node %s itself, or a copy of its data directory", f.Node), true
	case !h.Node.IsZero() && slices.Contains(f.Path, h.Node):
		return refuse(wire.CodeLoop, "node %s gets its data from node %s, which asks for it", f.Node, h.Node), true
	case len(f.Path) >= wire.MaxPath:
		return refuse(wire.CodeLoop, "this node is number %d of its chain, and a chain has at most %d: follow a node nearer to its root", len(f.Path), wire.MaxPath), true
	case h.Shard != f.Shard:
		return refuse(wire.CodeShard, "this port serves shard %d of %d, the replica asked for shard %d; is --primary set to the port base?", f.Shard, f.Shards, h.Shard), true
	case len(f.Lineage) == 0:
		return refuse(wire.CodeLoading, "shard %d has no data of its own yet", f.Shard), true
	case f.Mixed:
		return refuse(wire.CodeLoading, "some shards of this node have gone over to its primary's data and others have not; try later, follow its primary, or promote the replica if that is gone"), true
	case f.Unsettled:
		return refuse(wire.CodeLoading, "shard %d is rejoining by difference and has no whole data yet", f.Shard), true
	}
	return Verdict{}, false
}

// place compares two histories.
func place(h wire.Hello, f Facts) Verdict {
	p := h.Position
	switch {
	case h.Shards != 0 && h.Shards != f.Shards:
		return fullSync(wire.ReasonShardLayout, "the replica has %d shards, this primary %d", h.Shards, f.Shards)
	case p.IsZero():
		return fullSync(wire.ReasonEmpty, "the replica has no data")
	}
	if v, never := settles(h, f); never {
		return v
	}
	fork, common := Fork(h, f.Lineage, f.Published, f.Following)
	switch {
	case common && fork.Offset > f.Published:
		return refuse(wire.CodeBehind, "this node follows another one and is at %d, the replica at %d: it has to catch up first; or follow its primary", f.Published, p.Offset)
	case (!common || fork.Offset < p.Offset) && f.Following && !f.Streaming:
		// What looks like another history may be that of its own primary.
		return refuse(wire.CodeBehind, "this node follows another one, which it has not reached yet, and %s is not on the history that it knows", p)
	case !common && !f.Lineage.Has(p.Generation):
		return fullSync(wire.ReasonUnknownGeneration, "%s is none of this primary's %d generations", p.Generation, len(f.Lineage))
	case !common:
		return fullSync(wire.ReasonDiverged, "%s does not lie on this primary's lineage, which is at %d", p, f.Published)
	case fork.Offset < p.Offset:
		return undo(h, f, fork)
	}
	switch f.Hold {
	case Evicted:
		return fullSync(wire.ReasonEvicted, "the log no longer holds %d", p.Offset)
	case Beyond:
		return fullSync(wire.ReasonDiverged, "%s is ahead of this primary, which is at %d", p, f.Published)
	case Misaligned:
		return fullSync(wire.ReasonDiverged, "%s lies inside a frame of this primary: no replica of its history can be there", p)
	}
	return Verdict{Action: Resume, Position: fork}
}

// settles answers a replica that has undone a surplus and whose data will never be whole on this node's history, or on what
// this node has of it so far: it holds values of another one.
func settles(h wire.Hello, f Facts) (Verdict, bool) {
	s := h.Settles
	switch {
	case s.IsZero() || f.Lineage.Contains(s, f.Published):
		return Verdict{}, false
	case f.Following && (!f.Streaming || f.Lineage.Contains(s, math.MaxUint64)):
		return refuse(wire.CodeBehind, "this node follows another one and is at %d, the replica's data is whole from %s on: it has to catch up first; or follow its primary", f.Published, s), true
	}
	return fullSync(wire.ReasonDiverged, "the replica has undone a surplus and its data is whole from %s on, which does not lie on this primary's lineage, at %d", s, f.Published), true
}

// undo answers a replica that has [fork, its offset), which this primary does not have.
func undo(h wire.Hello, f Facts, fork wire.Position) Verdict {
	const surplus = "the replica has [%d, %d), which this primary, at %d, does not have"
	var why string
	switch {
	case h.Capabilities&wire.CapDifference == 0:
		why = ", and cannot undo it"
	case fork.Offset == 0 && f.Published == 0:
		why = ", and nothing else" // undoing it would be a wipe; a full sync asks the replica whether it may be wiped
	case !f.Values:
		why = "; this primary cannot tell single keys"
	case f.Hold == Misaligned:
		why = "; that begins inside a frame of this primary"
	case f.Hold != Held:
		why = "; its log no longer reaches back to that"
	default:
		return Verdict{Action: Rewind, Position: fork, Text: fmt.Sprintf(surplus, fork.Offset, h.Position.Offset, f.Published)}
	}
	return fullSync(wire.ReasonDiverged, surplus+why, fork.Offset, h.Position.Offset, f.Published)
}
