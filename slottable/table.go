package slottable

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/understudy-kv/understudy/wire"
)

// ErrSession means that the session was replaced or detached: whoever acts in its name must stop.
var ErrSession = errors.New("slottable: the session no longer holds its slot")

// Limits bounds a table, for each shard. Zero means no limit.
type Limits struct {
	Live  int // attached slots
	Slots int // slots, detached ones included
}

// Table is the slots of all shards of a node. It is not safe for concurrent use.
type Table struct {
	limits   Limits
	shards   []shardSlots
	sessions map[Session]*Slot
	last     Session
	version  uint64
}

type shardSlots struct {
	lineage wire.Lineage
	slots   map[wire.ID]*Slot
}

// New makes an empty table for shards 0 to shards-1.
func New(shards int, limits Limits) *Table {
	t := &Table{limits: limits, shards: make([]shardSlots, shards), sessions: make(map[Session]*Slot)}
	for i := range t.shards {
		t.shards[i].slots = make(map[wire.ID]*Slot)
	}
	return t
}

// Version changes whenever something changes that [Table.Export] would write.
func (t *Table) Version() uint64 { return t.version }

// SetLineage tells the shard's present lineage. Acks that speak of another generation than its newest are void (a stale high
// ack must never satisfy a WAIT), and a need falls back to where the slot's history left this one. A slot whose history has
// nothing in common with it needs nothing that could be kept: it goes, and is returned if its replica is away; otherwise it
// goes with its session.
func (t *Table) SetLineage(shard int, l wire.Lineage) (gone []Slot) {
	s := &t.shards[shard]
	if s.lineage.Equal(l) {
		return nil
	}
	before := s.lineage
	s.lineage = l
	for id, slot := range s.slots {
		if slot.Generation == l.Current() {
			continue
		}
		slot.void()
		switch there := slot.rebase(before, l); {
		case slot.Attached():
		case there:
			slot.Generation = slot.history
		default:
			gone = append(gone, *slot)
			delete(s.slots, id)
		}
	}
	t.version++
	return gone
}

// Attachment is an accepted handshake. Its generation is the newest of the shard's present lineage.
type Attachment struct {
	Shard                           int
	Replica, Nonce                  wire.ID
	Address, Announce, AnnounceBase string
	// Start is where the stream will begin: the replica has everything before it. In a full sync it is any offset that
	// is not beyond the snapshot's, which [Table.Sync] then tells.
	Start   uint64
	Syncing bool
	// Undoing: the replica has a surplus behind Start, which it is to undo. What it acked is void.
	Undoing bool
	// Settles: the replica has undone a surplus, here or elsewhere, and its data is whole from this offset on; 0 if it is.
	Settles uint64
}

// Attach opens a session on the replica's slot, and makes the slot if there is none. The same process (the same nonce)
// takes its slot over from its own earlier connection, whose session is returned as replaced and must be ended by the
// caller; another process gets a *[TakenError] while the holder is attached. A *[FullError] tells a limit.
func (t *Table) Attach(a Attachment, now time.Duration) (opened, replaced Session, err error) {
	sh := &t.shards[a.Shard]
	s := sh.slots[a.Replica]
	if s != nil && s.Attached() && s.Nonce != a.Nonce {
		return 0, 0, &TakenError{Replica: a.Replica, Shard: a.Shard, Holder: s.Address}
	}
	if s == nil || !s.Attached() {
		if n := t.Live(a.Shard); t.limits.Live > 0 && n >= t.limits.Live {
			return 0, 0, &FullError{Shard: a.Shard, Limit: t.limits.Live, What: "live sessions"}
		}
	}
	if s == nil {
		if t.limits.Slots > 0 && len(sh.slots) >= t.limits.Slots {
			return 0, 0, &FullError{Shard: a.Shard, Limit: t.limits.Slots, What: "slots"}
		}
		s = &Slot{Replica: a.Replica, Shard: a.Shard}
		sh.slots[a.Replica] = s
	}
	replaced = s.Session
	delete(t.sessions, replaced)
	t.last++
	s.Session, s.Nonce, s.Seen = t.last, a.Nonce, now
	s.Address, s.Announce, s.AnnounceBase = a.Address, a.Announce, a.AnnounceBase
	t.sessions[s.Session] = s
	if s.Generation != sh.lineage.Current() || a.Syncing || a.Undoing {
		s.void()
	}
	s.Settles = max(s.Settles, a.Settles)
	if a.Syncing || a.Undoing || a.Start >= s.Settles {
		s.Settles = 0
	}
	s.Generation, s.history = sh.lineage.Current(), sh.lineage.Current()
	s.claim(a.Start)
	s.Syncing, s.Snapshot, s.Undoing = a.Syncing, wire.ID{}, a.Undoing
	s.begin(a.Start)
	t.version++
	return s.Session, replaced, nil
}

// begin starts the session's stream at an offset.
func (s *Slot) begin(start uint64) {
	s.Start, s.Sent, s.fresh = start, start, true
	s.keep(start)
}

// Sync tells which snapshot a syncing session fetches, and its offset: the log is kept from there on.
func (t *Table) Sync(session Session, snapshot wire.ID, at uint64) error {
	s := t.sessions[session]
	if s == nil {
		return ErrSession
	}
	if !s.Syncing {
		return fmt.Errorf("slottable: replica %s on shard %d is not in a full sync", s.Replica, s.Shard)
	}
	s.Snapshot = snapshot
	s.begin(at)
	t.version++
	return nil
}

// Settles tells, in a session that undoes a surplus, from which offset on the replica's data will be whole again.
func (t *Table) Settles(session Session, at uint64) error {
	s := t.sessions[session]
	if s == nil {
		return ErrSession
	}
	if !s.Undoing {
		return fmt.Errorf("slottable: replica %s on shard %d undoes no surplus", s.Replica, s.Shard)
	}
	s.Settles = at
	t.version++
	return nil
}

// Sent tells how far the session's stream was handed to its connection. It must be told before a byte of it leaves,
// or an ack could overtake it.
func (t *Table) Sent(session Session, next uint64) error {
	s := t.sessions[session]
	if s == nil {
		return ErrSession
	}
	s.Sent = max(s.Sent, next)
	return nil
}

// Ack takes an ack of the session. It returns ErrSession, or an *[AckError] for an ack that goes backwards or past
// what was sent. An ack ends a full sync when it covers the snapshot.
func (t *Table) Ack(session Session, a wire.Ack, now time.Duration) error {
	s := t.sessions[session]
	if s == nil {
		return ErrSession
	}
	if err := s.judge(a); err != nil {
		return err
	}
	s.Seen = now
	if a.Applied >= s.Settles {
		s.Settles = 0
	}
	if s.Syncing && a.Applied < s.Start {
		return nil // a sign of life while the snapshot is being installed
	}
	if s.Syncing {
		s.Syncing, s.Snapshot = false, wire.ID{}
		t.version++
	}
	if !s.Acked || s.Ack != a {
		t.version++
	}
	s.Acked, s.Ack, s.last, s.fresh = true, a, a, false
	if s.Generation == s.history { // otherwise it tells nothing of what the replica will need
		s.keep(s.Start)
	}
	return nil
}

// Detach ends a session. It does nothing for one that was replaced.
func (t *Table) Detach(session Session, now time.Duration) {
	s := t.sessions[session]
	if s == nil {
		return
	}
	delete(t.sessions, session)
	s.Session, s.Detached = 0, now
	sh := &t.shards[s.Shard]
	if s.Generation != s.history {
		s.void()
		s.Generation = s.history
	}
	if s.Syncing && s.Snapshot.IsZero() || len(sh.lineage) > 0 && !sh.lineage.Has(s.history) {
		delete(sh.slots, s.Replica)
	}
	t.version++
}

// Reap forgets the slots whose replica has been away for the window or longer, and returns them.
func (t *Table) Reap(now, window time.Duration) []Slot {
	var reaped []Slot
	for i := range t.shards {
		for id, s := range t.shards[i].slots {
			if !s.Attached() && now-s.Detached >= window {
				reaped = append(reaped, *s)
				delete(t.shards[i].slots, id)
			}
		}
	}
	if len(reaped) > 0 {
		t.version++
	}
	return reaped
}

// Extend lengthens the windows of all detached slots by what the primary slept through, as if they had been detached so much later, but not
// later than now: meanwhile nobody could have come back.
func (t *Table) Extend(slept, now time.Duration) {
	for i := range t.shards {
		for _, s := range t.shards[i].slots {
			if !s.Attached() {
				s.Detached = min(s.Detached+slept, now)
			}
		}
	}
}

// Drop forgets a detached replica's slots on every shard and returns how many there were. The error is ErrNoSlot, or an
// *[AttachedError] if one of them is attached; then none is dropped.
func (t *Table) Drop(replica wire.ID) (dropped int, err error) {
	for i := range t.shards {
		if s := t.shards[i].slots[replica]; s != nil && s.Attached() {
			return 0, &AttachedError{Replica: replica, Shard: i, Address: s.Address}
		}
	}
	for i := range t.shards {
		if _, there := t.shards[i].slots[replica]; there {
			delete(t.shards[i].slots, replica)
			dropped++
		}
	}
	if dropped == 0 {
		return 0, fmt.Errorf("%w: replica %s", ErrNoSlot, replica)
	}
	t.version++
	return dropped, nil
}

// Live is the number of attached slots of a shard.
func (t *Table) Live(shard int) (n int) {
	for _, s := range t.shards[shard].slots {
		if s.Attached() {
			n++
		}
	}
	return n
}

// Slots returns copies of a shard's slots, ordered by replica id.
func (t *Table) Slots(shard int) []Slot {
	out := make([]Slot, 0, len(t.shards[shard].slots))
	for _, s := range t.shards[shard].slots {
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b Slot) int { return bytes.Compare(a.Replica[:], b.Replica[:]) })
	return out
}
