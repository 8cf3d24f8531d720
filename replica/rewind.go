package replica

import (
	"errors"
	"fmt"
	"math"

	"github.com/hashicorp/go-hclog"
)

// rewindPhase is how far a rejoin by difference is:
//
//	REWIND -> surplus saved -> listing -> fetching -> undoing -> the session ends; the next one resumes at the fork
//
// Nothing of the shard changes before undoing, and that happens wholly or not at all. A surplus that is too much for it is
// found while listing: then the next HELLO does not offer it, and the answer to that is a full sync.
type rewindPhase uint8

const (
	rewindListing  rewindPhase = iota // the keys are read from the log, and asked for
	rewindFetching                    // values come in
	rewindUndoing                     // the shard goes back
)

// maxRewinds is how often in a row a shard may fail to go back before it is synced in full.
const maxRewinds = 3

// rewindState is a link's rejoin by difference.
type rewindState struct {
	phase  rewindPhase
	failed int // in a row, over sessions
}

func (s *rewindState) allows(k EventKind) bool {
	switch k {
	case EventHeartbeat:
		return true
	case EventListed:
		return s.phase == rewindListing
	case EventValues, EventValuesEnd:
		return s.phase == rewindFetching
	case EventRewound:
		return s.phase == rewindUndoing
	}
	return false
}

// rewind begins to undo what the primary does not have, which is saved first. The fork that the primary names must be the
// one that the two lineages tell.
func (l *Link) rewind() {
	w := l.welcome
	from, surplus := l.surplus()
	switch {
	case !l.offered:
		l.fail(fmt.Errorf("%w: it has this replica go back to %s, which HELLO did not offer", ErrProtocol, w.Position))
		return
	case !surplus || w.Position.Offset != from || !l.lineage.Contains(w.Position, l.position.Offset):
		l.fail(fmt.Errorf("%w: it has this replica, at %s, go back to %s, where their histories do not part", ErrProtocol, l.position, w.Position))
		return
	}
	l.do(Action{Kind: ActionPlace, Welcome: w})
	l.figures.Owes = true
	l.figures.LastResync = "rewind"
	l.figures.PrimaryOffset = w.Next
	l.keptAlive = l.now
	l.rewinding.phase = rewindListing
	l.setState(StateRewinding)
	l.log(hclog.Warn, "undoing what the primary does not have", "from", from, "position", l.position, "primary_offset", w.Next)
	l.do(Action{Kind: ActionSurplus, From: from})
	l.do(Action{Kind: ActionList, From: from})
}

func (l *Link) stepRewind(ev Event) {
	s, w := &l.rewinding, l.welcome
	switch ev.Kind {
	case EventHeartbeat:
		l.figures.PrimaryOffset = max(l.figures.PrimaryOffset, ev.Heartbeat.Position.Offset)
	case EventListed:
		if ev.Err != nil {
			l.cannot = errors.Is(ev.Err, ErrCannotUndo)
			l.progress = l.cannot
			l.fail(ev.Err)
			return
		}
		s.phase = rewindFetching
	case EventValues:
		l.do(Action{Kind: ActionKeep})
	case EventValuesEnd:
		if at := ev.Position; at.Offset < w.Position.Offset || !w.Lineage.Contains(at, math.MaxUint64) {
			l.fail(fmt.Errorf("%w: values of %s, which is not on its lineage %s behind the fork %s", ErrProtocol, at, w.Lineage, w.Position))
			return
		}
		s.phase = rewindUndoing
		l.do(Action{Kind: ActionRewind, Position: w.Position, Settles: ev.Position, Lineage: w.Lineage})
	case EventRewound:
		if ev.Err != nil {
			// The shard still has its old data and its old position.
			if s.failed++; s.failed >= maxRewinds || errors.Is(ev.Err, ErrCannotUndo) {
				s.failed, l.cannot = 0, true
			}
			l.fail(fmt.Errorf("%w: %w", ErrRewind, ev.Err))
			return
		}
		s.failed = 0
		l.figures.Rewinds++
		l.figures.Owes = false
		l.progress, l.rewound = true, true
		l.fail(errRewound)
	}
}
