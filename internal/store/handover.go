package store

import (
	"errors"

	"github.com/understudy-kv/understudy/wire"
)

// Handover is a handover of this node's role to another one, from when the role was given up until it is known who has it.
type Handover struct {
	ID     wire.ID `json:"id"`
	Target string  `json:"target"` // its replication address, "host:port-base"
	// Positions are what the target must have applied, one a shard; none in a forced handover.
	Positions []wire.Position `json:"positions,omitempty"`
}

// HandOver records that the node has given its role up for that handover: it is a replica of the target, which may not have
// taken over yet. SetRole records the outcome.
func (s *Store) HandOver(h Handover) error {
	return s.changeNode(func(n *node) { n.Role, n.Primary, n.Handover = Replica, h.Target, &h })
}

// Handover is the handover whose outcome is not recorded, nil if there is none. It must not be changed.
func (s *Store) Handover() *Handover { return s.nodeCopy().Handover }

var errNoID = errors.New("a handover without an id")

// TakeOver records that the node is a primary by the handover with that id.
func (s *Store) TakeOver(id wire.ID) error {
	if id.IsZero() {
		return errNoID
	}
	return s.changeNode(func(n *node) {
		n.Takeover, n.Role, n.Primary, n.Handover, n.Mixed = id.String(), Primary, "", nil, false
	})
}

// Void records that the handover with that id will never be carried out here.
func (s *Store) Void(id wire.ID) error {
	if id.IsZero() {
		return errNoID
	}
	return s.changeNode(func(n *node) { n.Void = id.String() })
}

// Takeovers are the ids of the last handover that this node took over by, and of the last that was taken back; zero if
// there was none.
func (s *Store) Takeovers() (done, void wire.ID) {
	n := s.nodeCopy()
	if n.Takeover != "" {
		done = parseID(n.Takeover)
	}
	if n.Void != "" {
		void = parseID(n.Void)
	}
	return done, void
}
