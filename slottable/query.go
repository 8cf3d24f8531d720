package slottable

import (
	"time"

	"github.com/understudy-kv/understudy/wire"
)

// Floor is the lowest offset that a slot of the shard needs, attached or not. Without a slot it reports false.
func (t *Table) Floor(shard int) (floor uint64, any bool) {
	for _, s := range t.shards[shard].slots {
		if !any || s.Need < floor {
			floor, any = s.Need, true
		}
	}
	return floor, any
}

// Syncing reports whether the session is in a full sync: its replica has not acked the snapshot yet.
func (t *Table) Syncing(session Session) bool {
	s := t.sessions[session]
	return s != nil && s.Syncing
}

// Uses reports whether a slot of the shard, attached or not, is in a full sync from the snapshot.
func (t *Table) Uses(shard int, snapshot wire.ID) bool {
	for _, s := range t.shards[shard].slots {
		if s.Syncing && s.Snapshot == snapshot {
			return true
		}
	}
	return false
}

// Count is the number of distinct replicas that have acked, at the level, everything before offsets[shard] on each
// shard with an offset above 0. Where no offset is above 0 it is the number of replicas that are live on every shard:
// a WAIT without a write before it asks who is there.
func (t *Table) Count(offsets []uint64, level Level) (n int) {
	asked := false
	for _, o := range offsets {
		asked = asked || o > 0
	}
	seen := make(map[wire.ID]struct{})
	for i := range t.shards {
		for id := range t.shards[i].slots {
			if _, twice := seen[id]; twice {
				continue
			}
			seen[id] = struct{}{}
			if t.covers(id, offsets, level, asked) {
				n++
			}
		}
	}
	return n
}

// Fresh is the number of distinct replicas that are live on every shard, that were heard on each since then, and that
// have applied everything before offsets[shard] on each, 0 included.
func (t *Table) Fresh(offsets []uint64, since time.Duration) (n int) {
	if len(t.shards) == 0 {
		return 0
	}
	for id := range t.shards[0].slots {
		if t.covers(id, offsets, Applied, false) && t.heard(id, since) {
			n++
		}
	}
	return n
}

func (t *Table) heard(replica wire.ID, since time.Duration) bool {
	for i := range t.shards {
		if s := t.shards[i].slots[replica]; s == nil || s.Seen < since {
			return false
		}
	}
	return true
}

func (t *Table) covers(replica wire.ID, offsets []uint64, level Level, asked bool) bool {
	for i := range t.shards {
		var offset uint64
		if i < len(offsets) {
			offset = offsets[i]
		}
		if offset == 0 && asked {
			continue
		}
		s := t.shards[i].slots[replica]
		if s == nil || !s.Attached() || s.Syncing || s.Settles > 0 || !s.Acked || s.Generation != t.shards[i].lineage.Current() || s.at(level) < offset {
			return false
		}
	}
	return true
}

// Record is what of a slot outlives the primary's process.
type Record struct {
	Replica                wire.ID
	Shard                  int
	Address                string
	Announce, AnnounceBase string
	Generation             wire.Generation
	Acked                  bool
	Ack                    wire.Ack
	Need                   uint64
	Settles                uint64
	Syncing                bool
	Start                  uint64  // the snapshot's offset; only of a slot that is in a full sync
	Snapshot               wire.ID // the same
}

// Export returns the records of all slots, ordered by shard and replica id. A full sync whose snapshot is not made
// yet has nothing that could outlive the process, and is left out.
func (t *Table) Export() []Record {
	var out []Record
	for i := range t.shards {
		for _, s := range t.Slots(i) {
			if s.Syncing && s.Snapshot.IsZero() {
				continue
			}
			r := Record{
				Replica: s.Replica, Shard: i, Address: s.Address, Announce: s.Announce, Generation: s.history,
				Acked: s.Acked, Ack: s.Ack, Need: s.Need, Syncing: s.Syncing, AnnounceBase: s.AnnounceBase, Settles: s.Settles,
			}
			if s.Generation != s.history {
				r.Acked, r.Ack = false, wire.Ack{}
			}
			if s.Syncing {
				r.Start, r.Snapshot = s.Start, s.Snapshot
			}
			out = append(out, r)
		}
	}
	return out
}

// Import fills an empty table with records. The slots are detached and their window begins now: how long the primary
// was away is nobody's fault. Call [Table.SetLineage] for every shard afterwards, so that acks of another history
// are void. Records of shards that the table does not have are left out.
func (t *Table) Import(records []Record, now time.Duration) {
	for _, r := range records {
		if r.Shard < 0 || r.Shard >= len(t.shards) || r.Replica.IsZero() {
			continue
		}
		t.shards[r.Shard].slots[r.Replica] = &Slot{
			Replica: r.Replica, Shard: r.Shard, Address: r.Address, Announce: r.Announce, Detached: now, Seen: now,
			Generation: r.Generation, history: r.Generation, Acked: r.Acked, Ack: r.Ack, Need: r.Need,
			Syncing: r.Syncing, Start: r.Start, Snapshot: r.Snapshot, AnnounceBase: r.AnnounceBase, Settles: r.Settles,
		}
	}
	t.version++
}
