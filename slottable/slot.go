package slottable

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/understudy-kv/understudy/wire"
)

// Session names one attachment of a slot. Zero means "none". Sessions are never used twice in one process.
type Session uint64

// Level is how far a replica must have come with a mutation for an ack to count.
type Level uint8

// The levels of an ack.
const (
	Applied Level = iota // visible to the replica's readers
	Durable              // survives power loss at the replica
)

// Slot is one replica on one shard. The table hands out copies.
type Slot struct {
	Replica  wire.ID
	Shard    int
	Nonce    wire.ID // of the process that is or was attached; zero after a restart of the primary
	Address  string  // where the connection came from
	Announce string  // where the replica says that clients reach it; may be empty
	// AnnounceBase is where it says that replicas of its own do, "host:port-base"; may be empty.
	AnnounceBase string

	Session  Session       // zero while detached
	Detached time.Duration // when the last session ended; meaningless while attached
	Seen     time.Duration // when the replica was last heard of: its attachment or its latest ack

	Generation wire.Generation // of the history that the acks speak of
	Start      uint64          // where the stream of the session began
	Sent       uint64          // the session was sent everything before it
	Acked      bool            // Ack means something
	Ack        wire.Ack
	Need       uint64 // the log must be kept from here on

	Syncing  bool    // in a full sync: nothing is acked before it is installed
	Snapshot wire.ID // the snapshot being fetched, zero until it is made
	Undoing  bool    // the session is one in which the replica undoes a surplus: nothing is acked in it
	Settles  uint64  // a replica that has undone a surplus has no whole data, and counts for nobody, before it has applied this

	history wire.Generation // what Need speaks of: Generation, or an earlier one that the shard's lineage still has

	fresh bool     // no ack in this session yet
	last  wire.Ack // the latest ack of this session, which outlives a change of generation
}

// Attached reports whether a connection holds the slot.
func (s *Slot) Attached() bool { return s.Session != 0 }

// at is the acked offset of a level.
func (s *Slot) at(l Level) uint64 {
	if l == Durable {
		return s.Ack.Durable
	}
	return s.Ack.Applied
}

// void forgets the acks: they spoke of another history.
func (s *Slot) void() { s.Acked, s.Ack = false, wire.Ack{} }

// rebase moves the slot from one lineage of its shard to the next: to the newest generation up to its own that both have.
// It reports whether there is one. A session's acks go on to speak of the generation that it was opened in.
func (s *Slot) rebase(from, to wire.Lineage) bool {
	if to.Has(s.history) {
		s.Need = min(s.Need, to.End(s.history))
		return true
	}
	for i := slices.IndexFunc(from, func(e wire.Epoch) bool { return e.Generation == s.history }) - 1; i >= 0; i-- {
		if g := from[i].Generation; to.Has(g) {
			s.history, s.Need = g, min(s.Need, from[i+1].First, to.End(g))
			return true
		}
	}
	return false
}

// claim lowers the acks to what the replica says that it has, [.., at).
func (s *Slot) claim(at uint64) {
	s.Ack.Received = min(s.Ack.Received, at)
	s.Ack.Applied = min(s.Ack.Applied, at)
	s.Ack.Durable = min(s.Ack.Durable, at)
}

// keep sets the need from the acks; before the first one it is where the replica began.
func (s *Slot) keep(start uint64) {
	switch {
	case s.Acked && s.Ack.Durable > 0:
		s.Need = s.Ack.Durable
	case s.Acked && s.Ack.Applied > 0:
		s.Need = s.Ack.Applied
	default:
		s.Need = start
	}
}

// judge says whether the session's next ack can be believed.
func (s *Slot) judge(a wire.Ack) error {
	switch {
	case a.Durable > a.Applied || a.Applied > a.Received:
		return &AckError{Got: a, Why: "each offset must be at most the one before"}
	case a.Received > s.Sent:
		return &AckError{Got: a, Why: fmt.Sprintf("only [.., %d) was sent", s.Sent)}
	case s.fresh && s.Syncing:
		return nil // whatever it still holds of its old data
	case s.fresh && a.Applied < s.Start:
		return &AckError{Got: a, Why: fmt.Sprintf("the session began at %d, which the replica said that it has", s.Start)}
	case s.fresh:
		return nil // what was durable at the end of the last session may be unknown after a restart
	case a.Received < s.last.Received || a.Applied < s.last.Applied || a.Durable < s.last.Durable:
		return &AckError{Got: a, Why: fmt.Sprintf("backwards from received %d, applied %d, durable %d",
			s.last.Received, s.last.Applied, s.last.Durable)}
	}
	return nil
}

// AckError is an ack that cannot be true. It ends the session: the peer broke the protocol.
type AckError struct {
	Got wire.Ack
	Why string
}

func (e *AckError) Error() string {
	return fmt.Sprintf("slottable: ack of received %d, applied %d, durable %d: %s", e.Got.Received, e.Got.Applied, e.Got.Durable, e.Why)
}

// TakenError refuses an attachment: another process with the same replica id holds the slot.
type TakenError struct {
	Replica wire.ID
	Shard   int
	Holder  string // the address of the process that holds it
}

func (e *TakenError) Error() string {
	return fmt.Sprintf("slottable: replica %s on shard %d is held by another process at %s; stop that process, or give this one its own data directory or --replica-id",
		e.Replica, e.Shard, e.Holder)
}

// AttachedError refuses to drop a slot: its replica is there, and would be back at once.
type AttachedError struct {
	Replica wire.ID
	Shard   int
	Address string
}

func (e *AttachedError) Error() string {
	return fmt.Sprintf("slottable: replica %s is attached to shard %d from %s; stop it first, then drop its slot", e.Replica, e.Shard, e.Address)
}

// ErrNoSlot means that no shard has a slot of that replica.
var ErrNoSlot = errors.New("slottable: no such slot")

// FullError refuses an attachment: the shard has as many replicas as it may.
type FullError struct {
	Shard, Limit int
	What         string // "live sessions" or "slots"
}

func (e *FullError) Error() string {
	return fmt.Sprintf("slottable: shard %d has %d %s, which is its limit; raise --max-replicas, or drop a slot with REPL.SLOT DROP",
		e.Shard, e.Limit, e.What)
}
