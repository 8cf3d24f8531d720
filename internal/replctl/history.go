package replctl

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/understudy-kv/understudy/internal/status"
	"github.com/understudy-kv/understudy/wire"
)

// history is what one shard of a node went through. at is the zero position for a shard without any.
type history struct {
	lineage wire.Lineage
	at      wire.Position
}

func historyOf(s status.Shard) (h history, err error) {
	if h.at, err = parsePosition(s.Position); err != nil {
		return h, err
	}
	for _, epoch := range s.Lineage {
		generation, first, _ := strings.Cut(epoch, "@")
		g, err := wire.ParseGeneration(generation)
		if err != nil {
			return h, fmt.Errorf("a lineage with %q: %w", epoch, err)
		}
		n, err := strconv.ParseUint(first, 10, 64)
		if err != nil {
			return h, fmt.Errorf("a lineage with %q: %w", epoch, err)
		}
		h.lineage = append(h.lineage, wire.Epoch{Generation: g, First: n})
	}
	return h, nil
}

// parsePosition reads what wire.Position.String writes.
func parsePosition(s string) (p wire.Position, err error) {
	if s == "" || s == p.String() {
		return p, nil
	}
	generation, offset, _ := strings.Cut(s, ":")
	if p.Generation, err = wire.ParseGeneration(generation); err == nil {
		p.Offset, err = strconv.ParseUint(offset, 10, 64)
	}
	if err != nil {
		return p, fmt.Errorf("%q is not a position: %w", s, err)
	}
	return p, nil
}

// relation is how the histories of two nodes stand to each other.
type relation uint8

const (
	related   relation = iota // one can reach the other's position, or it is not known yet
	strangers                 // they have no generation in common
	diverged                  // both went on from one position, each its own way
)

// relationTo compares a replica's history with that of a node that it is verified against: its primary, or if follows is
// set another replica. fork is the newest position that diverged histories share. The two were not read at one instant,
// so a position in the newest generation may be behind what the other has heard of it.
func (h history) relationTo(other history, follows bool) (r relation, fork uint64) {
	mine, theirs := h.lineage.Until(h.at.Offset), other.lineage.Until(other.at.Offset)
	if h.at.IsZero() || other.at.IsZero() || len(mine) == 0 || len(theirs) == 0 {
		return related, 0
	}
	for i := len(mine) - 1; i >= 0; i-- {
		if g := mine[i].Generation; theirs.Has(g) {
			fork = min(end(mine, g), end(theirs, g))
			if h.at.Offset > fork && (!follows || other.at.Offset > fork) {
				return diverged, fork
			}
			return related, 0
		}
	}
	return strangers, 0
}

// end is the offset at which a generation of the lineage ends, the largest there is for the newest.
func end(l wire.Lineage, g wire.Generation) uint64 {
	for i, e := range l[:len(l)-1] {
		if e.Generation == g {
			return l[i+1].First
		}
	}
	return math.MaxUint64
}

// comparable tells at once what waiting cannot change: that the two nodes do not have one history.
func (primary *verifiedNode) comparable(replica *verifiedNode, shard int) error {
	p, err := historyOf(primary.status.Shards[shard])
	if err != nil {
		return fmt.Errorf("%s: %w", primary.conn.Addr(), err)
	}
	r, err := historyOf(replica.status.Shards[shard])
	if err != nil {
		return fmt.Errorf("%s: %w", replica.conn.Addr(), err)
	}
	relation, fork := r.relationTo(p, primary.follows())
	switch relation {
	case strangers:
		return fmt.Errorf("%s and %s share no history: no generation of the one is one of the other's; give a node and one that follows it, or two that follow the same",
			primary.describe(p), replica.describe(r))
	case diverged:
		return fmt.Errorf("%s and %s share their history up to offset %d only: the replica must rejoin first; see replctl status",
			primary.describe(p), replica.describe(r), fork)
	}
	return nil
}

func (n *verifiedNode) follows() bool { return n.status.Role == "replica" }

// describe names the node, where it stands and whom it follows.
func (n *verifiedNode) describe(h history) string {
	s := fmt.Sprintf("%s %s at %s", n.status.Role, n.conn.Addr(), h.at)
	if n.status.Primary != "" {
		s += ", which follows " + n.status.Primary + ","
	}
	return s
}
