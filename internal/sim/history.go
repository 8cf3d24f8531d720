package sim

import (
	"bytes"
	"fmt"
	"maps"

	"github.com/understudy-kv/understudy/wire"
)

// history is every mutation that was seen in any log, by the generation that made it. It is the model: what a node has
// at a position is what the mutations before it, along the node's lineage, make.
type history struct {
	shards []map[wire.Generation]*epoch
	names  map[wire.Generation]string
}

// epoch is one generation of one shard.
type epoch struct {
	first     uint64
	mutations map[uint64][]byte
	bases     map[uint64]map[string]string // what a node had at an offset, of which not everything was seen
}

func newHistory(shards int) *history {
	h := &history{shards: make([]map[wire.Generation]*epoch, shards), names: map[wire.Generation]string{}}
	for i := range h.shards {
		h.shards[i] = map[wire.Generation]*epoch{}
	}
	return h
}

// name gives generations short names, in the order in which they were seen.
func (h *history) name(g wire.Generation) string {
	if h.names[g] == "" {
		h.names[g] = fmt.Sprint("g", len(h.names)+1)
	}
	return h.names[g]
}

func (h *history) position(p wire.Position) string {
	if p.IsZero() {
		return "none"
	}
	return fmt.Sprintf("%s:%d", h.name(p.Generation), p.Offset)
}

// lineage takes in where generations begin, and reports one that is new, or begins elsewhere than somebody else said.
func (h *history) lineage(shard int, l wire.Lineage) (begun []wire.Generation, err error) {
	for _, e := range l {
		known := h.shards[shard][e.Generation]
		switch {
		case known == nil:
			h.shards[shard][e.Generation] = &epoch{first: e.First, mutations: map[uint64][]byte{}, bases: map[uint64]map[string]string{}}
			begun = append(begun, e.Generation)
		case known.first != e.First:
			return begun, fmt.Errorf("generation %s begins at %d, and elsewhere it is said to begin at %d", h.name(e.Generation), e.First, known.first)
		}
	}
	return begun, nil
}

// add takes a frame of a node's log in, and says which mutation differs from what another node has in its place.
func (h *history) add(shard int, l wire.Lineage, f wire.Frame) error {
	var parts [][]byte
	var m []byte
	ops := f.Ops()
	for ops.Next() {
		if op := ops.Op(); op.Kind != wire.OpEnd {
			m = appendOp(m, op)
			continue
		}
		parts, m = append(parts, m), nil
	}
	if err := ops.Err(); err != nil || len(parts) != int(f.Count) {
		return fmt.Errorf("a frame at %d is said to hold %d mutations and holds %d (%v)", f.First, f.Count, len(parts), err)
	}
	for i, part := range parts {
		at := f.First + uint64(i)
		g := l.At(at).Generation
		e := h.shards[shard][g]
		if e == nil {
			return fmt.Errorf("a mutation at %d belongs to no generation of %s", at, l)
		}
		if known, ok := e.mutations[at]; ok && !bytes.Equal(known, part) {
			return fmt.Errorf("two nodes have different mutations at %s: %q and %q", h.position(wire.Position{Generation: g, Offset: at}), clip(part), clip(known))
		}
		e.mutations[at] = part
	}
	return nil
}

func clip(b []byte) []byte { return b[:min(len(b), 120)] }

// appendOp is an operation as bytes, which fold reads.
func appendOp(b []byte, op wire.Op) []byte {
	b = append(b, byte(op.Kind))
	b = appendBytes(b, op.Key)
	return appendBytes(b, op.Value)
}

func appendBytes(b, v []byte) []byte {
	b = append(b, byte(len(v)>>24), byte(len(v)>>16), byte(len(v)>>8), byte(len(v)))
	return append(b, v...)
}

func cutBytes(b []byte) (v, rest []byte) {
	n := int(b[0])<<24 | int(b[1])<<16 | int(b[2])<<8 | int(b[3])
	return b[4 : 4+n], b[4+n:]
}

// fold is what a shard holds at one position of one lineage, kept from check to check.
type fold struct {
	lineage wire.Lineage
	at      uint64
	data    map[string]string
}

// to brings the fold to an offset of a lineage. It reports false if mutations on the way were never seen.
func (f *fold) to(h *history, shard int, l wire.Lineage, at uint64) bool {
	if f.data == nil || f.at > at || !agree(f.lineage, l, f.at) {
		f.data, f.at = map[string]string{}, 0
	}
	f.lineage = l
	for f.at < at {
		m, ok := h.shards[shard][l.At(f.at).Generation].find(f.at)
		if !ok {
			return f.base(h, shard, l, at)
		}
		apply(f.data, m)
		f.at++
	}
	return true
}

// base begins again at the newest state that some node showed behind a gap.
func (f *fold) base(h *history, shard int, l wire.Lineage, at uint64) bool {
	for o := at; o > f.at; o-- {
		p := l.At(o)
		if e := h.shards[shard][p.Generation]; e != nil && e.bases[o] != nil {
			f.data, f.at = maps.Clone(e.bases[o]), o
			return f.to(h, shard, l, at)
		}
	}
	f.data = nil
	return false
}

func (e *epoch) find(at uint64) ([]byte, bool) {
	if e == nil {
		return nil, false
	}
	m, ok := e.mutations[at]
	return m, ok
}

// agree reports whether two lineages tell the same history up to an offset.
func agree(a, b wire.Lineage, to uint64) bool { return fork(a, b, to) == to }

// fork is the first offset, up to limit, whose mutation the two lineages ascribe to different generations.
func fork(a, b wire.Lineage, limit uint64) uint64 {
	points := []uint64{0}
	for _, e := range a {
		points = append(points, e.First)
	}
	for _, e := range b {
		points = append(points, e.First)
	}
	first := limit
	for _, o := range points {
		if o < first && a.At(o).Generation != b.At(o).Generation {
			first = o
		}
	}
	return first
}

func apply(data map[string]string, m []byte) {
	for len(m) > 0 {
		kind := wire.OpKind(m[0])
		var key, value []byte
		key, m = cutBytes(m[1:])
		value, m = cutBytes(m)
		switch kind {
		case wire.OpPut:
			data[string(key)] = string(value)
		case wire.OpDelete:
			delete(data, string(key))
		case wire.OpDeleteRange:
			for k := range data {
				if k >= string(key) && k < string(value) {
					delete(data, k)
				}
			}
		}
	}
}
