package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/understudy-kv/understudy/internal/store"
	"github.com/understudy-kv/understudy/wire"
)

// takenOver answers the primary that this node follows and that hands its role over, or takes that back.
func (n *Node) takenOver(_ context.Context, t wire.Takeover) wire.TakeoverReply {
	reply := wire.TakeoverReply{ID: t.ID, Outcome: wire.OutcomeRefused}
	if t.ID.IsZero() {
		reply.Text = "the handover has no id"
		return reply
	}
	n.roleMu.Lock()
	defer n.roleMu.Unlock()
	done, void := n.data.store.Takeovers()
	switch {
	case done == t.ID || n.wentOn(t):
		reply.Outcome = wire.OutcomeDone
		return reply
	case void == t.ID || n.void == t.ID:
		reply.Outcome = wire.OutcomeVoid
		return reply
	case t.Cancel && !t.Probe:
		// The sender is about to write again, and asks no more with this id. What may still come is on a connection to this
		// process, so it is void even if the disk does not take it.
		n.void = t.ID
		if err := n.data.store.Void(t.ID); err != nil {
			n.opts.Logger.Warn("that a handover was taken back could not be recorded", "handover", t.ID, "error", err)
		}
		reply.Outcome = wire.OutcomeVoid
		return reply
	}
	if err := n.mayTakeOver(t); err != nil {
		reply.Text = err.Error()
		return reply
	}
	if t.Probe {
		reply.Outcome = wire.OutcomeReady
		return reply
	}
	record := func() error {
		// The links have ended: what they brought since the first look is seen now.
		if err := n.haveExactly(t.Positions); err != nil {
			return err
		}
		return n.data.store.TakeOver(t.ID)
	}
	if err := n.promote(true, record); err != nil && n.Role() != store.Primary {
		reply.Text = err.Error()
		return reply
	}
	reply.Positions = n.positions()
	reply.Outcome = wire.OutcomeDone
	return reply
}

// wentOn reports whether the sender's history went on here without it, as that of another primary or of this one: then the
// sender, which has written nothing since, has only to follow. Who asks may have been gone for long, and the id be forgotten.
func (n *Node) wentOn(t wire.Takeover) bool {
	primary := n.Role() == store.Primary
	if len(t.Positions) == 0 {
		return primary // forced
	}
	shards := n.Shards()
	if len(shards) != len(t.Positions) || slices.Contains(n.Path(), t.Node) {
		return false // it goes on at the sender
	}
	elsewhere := primary
	for i, s := range shards {
		lineage := s.Lineage()
		if !s.Settled() || !lineage.Contains(t.Positions[i], s.Position().Offset) {
			return false
		}
		elsewhere = elsewhere || lineage.Current() != t.Positions[i].Generation
	}
	return elsewhere
}

// mayTakeOver says why the handover cannot be accepted, or nil.
func (n *Node) mayTakeOver(t wire.Takeover) error {
	if n.Role() != store.Replica {
		return errors.New("this node is a primary already, of another history")
	}
	var parent wire.ID
	if f := n.Follower(); f != nil {
		if path := f.Path(); len(path) > 0 {
			parent = path[len(path)-1]
		}
	}
	if parent != t.Node {
		return fmt.Errorf("this node follows %s, not node %s", n.Primary(), t.Node)
	}
	return n.haveExactly(t.Positions)
}

// haveExactly says how the node's positions differ from those of a handover; a forced one has none.
func (n *Node) haveExactly(want []wire.Position) error {
	if have := n.positions(); len(want) > 0 && !slices.Equal(have, want) {
		return fmt.Errorf("this node is at %v, the handover is at %v", have, want)
	}
	return nil
}

func (n *Node) positions() (all []wire.Position) {
	for _, s := range n.Shards() {
		all = append(all, s.Position())
	}
	return all
}
