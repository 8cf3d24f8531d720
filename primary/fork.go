package primary

import (
	"slices"

	"github.com/understudy-kv/understudy/wire"
)

// Fork is the newest position that a replica's history and this node's both have, as a position on this node's lineage; false
// if they have no generation in common, or if the two tell different things of it. The replica's history ends at its
// position, and this node's at next. A node that follows another one may have got the lineage of it, but not yet the
// mutations: then the fork may lie beyond next, where only the other one's mutations can tell.
func Fork(h wire.Hello, l wire.Lineage, next uint64, following bool) (wire.Position, bool) {
	p := h.Position
	theirs := h.Lineage // as far as their position; read, never kept, so that a decision costs no garbage
	for n := len(theirs); n > 0 && theirs[n-1].First > p.Offset; n-- {
		theirs = theirs[:n-1]
	}
	if n := epoch(theirs, p.Generation); n >= 0 {
		theirs = theirs[:n+1]
	} else if mine := epoch(l, p.Generation); mine >= 0 && len(h.Lineage) == 0 {
		theirs = wire.Lineage{l[mine]} // it did not say where its generation began
	} else {
		return wire.Position{}, false
	}
	end := p.Offset // of the replica's epoch i
	for i := len(theirs) - 1; i >= 0; i-- {
		e := theirs[i]
		mine := epoch(l, e.Generation)
		if mine < 0 {
			end = e.First
			continue
		}
		fork := end
		switch {
		case mine+1 < len(l):
			fork = min(end, l[mine+1].First)
		case !following:
			fork = min(end, next)
		}
		// One generation begins at one offset; who says otherwise, or has less than its beginning, is not to be believed.
		return wire.Position{Generation: e.Generation, Offset: fork}, l[mine].First == e.First && fork >= e.First
	}
	return wire.Position{}, false
}

// epoch is the index of a generation in a lineage, or -1.
func epoch(l wire.Lineage, g wire.Generation) int {
	return slices.IndexFunc(l, func(e wire.Epoch) bool { return e.Generation == g })
}
