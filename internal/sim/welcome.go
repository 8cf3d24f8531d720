package sim

import (
	"slices"

	"github.com/understudy-kv/understudy/wire"
)

// welcomed judges an answer to HELLO by what both sides said, and by what the answering one has.
func (w *world) welcomed(t *tap, kind wire.Kind) {
	h, a := t.hello, t.welcome
	who, shard := t.near.host.name, int(h.Shard)
	p := h.Position
	common := fork(h.Lineage, a.Lineage, p.Offset) // where the histories part, by the lineages
	switch {
	case p.IsZero():
		common = 0
	case common > a.Next:
		common = a.Next
	}
	switch kind {
	case wire.KindResume:
		w.event("%s shard %d resumes from %s at %d", who, shard, t.far.host.name, a.Position.Offset)
		if p.IsZero() || a.Position.Offset != p.Offset || common < p.Offset {
			w.fail(3, "%s shard %d is at %s of %s and resumes at %s of %s", who, shard, p, h.Lineage, a.Position, a.Lineage)
		}
		if stranded(h, a) {
			w.fail(3, "%s shard %d has values of %s and resumes from %s, which is at %d of %s", who, shard, h.Settles, t.far.host.name, a.Next, a.Lineage)
		}
	case wire.KindRewind:
		w.event("%s shard %d at %d rewinds to %s at %d", who, shard, p.Offset, t.far.host.name, a.Position.Offset)
		if a.Position.Offset != common || common == p.Offset {
			w.fail(3, "%s shard %d is at %s of %s and is to rewind to %s of %s, where the fork is at %d", who, shard, p, h.Lineage, a.Position, a.Lineage, common)
		}
	case wire.KindFullSync:
		w.event("%s shard %d at %d syncs in full from %s: %s", who, shard, p.Offset, t.far.host.name, a.Reason)
		w.judgeFullSync(t, common)
	}
}

// judgeFullSync looks whether the reason is true.
func (w *world) judgeFullSync(t *tap, common uint64) {
	h, a := t.hello, t.welcome
	p := h.Position
	oldest := uint64(0)
	if s := t.far.shards(); int(h.Shard) < len(s) {
		oldest = s[h.Shard].Log().Bounds().Oldest
	}
	ok := false
	switch a.Reason {
	case wire.ReasonEmpty:
		ok = p.IsZero()
	case wire.ReasonEvicted:
		ok = common == p.Offset && p.Offset < oldest
	case wire.ReasonDiverged, wire.ReasonUnknownGeneration:
		ok = common < p.Offset || !related(h.Lineage, a.Lineage) || stranded(h, a)
	}
	if !ok {
		w.fail(3, "%s shard %d is at %s of %s and syncs in full for the reason %s, from %s, which is at %d of %s and has everything from %d on",
			t.near.host.name, h.Shard, p, h.Lineage, a.Reason, t.far.host.name, a.Next, a.Lineage, oldest)
	}
}

// stranded reports whether the dialling side has undone a surplus with values of a position that the other one does not have:
// its data never becomes whole there.
func stranded(h *wire.Hello, a *wire.Welcome) bool {
	return !h.Settles.IsZero() && !a.Lineage.Contains(h.Settles, a.Next)
}

// related reports whether two histories have a generation in common.
func related(a, b wire.Lineage) bool {
	return slices.ContainsFunc(a, func(e wire.Epoch) bool { return b.Has(e.Generation) })
}
