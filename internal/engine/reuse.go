package engine

import "encoding/binary"

// reuse is a loose memtable's places of overwritten records. A place waits until every get that may still look at it has
// ended: it is freed, then waits behind a turn of the epoch, and is open behind the next one (Engine.reclaimLocked). A
// variant of epoch-based reclamation (Fraser, Practical lock-freedom, 2004) with two epochs, since only one goroutine frees.
type reuse struct {
	freed, waiting []place8
	open           *[reuseClasses][]uint32 // by size in units of refUnit
}

// place8 is a place of a record: its ref and its size in units of refUnit.
type place8 struct{ ref, units uint32 }

// reuseClasses bounds the size of records whose places are used again, in units of refUnit: 8 KiB.
const reuseClasses = 1 << 10

func unitsOf(n int) int { return (n + refUnit - 1) / refUnit }

// take gives a place for a record of n bytes, if there is one that is open.
func (r *reuse) take(m *memtable, n int) ([]byte, uint32) {
	units := unitsOf(n)
	if r.open == nil || units >= reuseClasses {
		return nil, 0
	}
	refs := r.open[units]
	if len(refs) == 0 {
		return nil, 0
	}
	ref := refs[len(refs)-1]
	r.open[units] = refs[:len(refs)-1]
	return m.at(ref)[:n:n], ref
}

// give takes the place of a record that was overwritten just now.
func (r *reuse) give(m *memtable, ref uint32) {
	b := m.at(ref)
	n := recordHead + int(binary.NativeEndian.Uint32(b)) + inlineLen(binary.NativeEndian.Uint32(b[4:]))
	if units := unitsOf(n); units < reuseClasses {
		r.freed = append(r.freed, place8{ref, uint32(units)})
	}
}

// pending reports whether there is anything that waits.
func (r *reuse) pending() bool { return len(r.freed)+len(r.waiting) > 0 }

// turn opens the places that waited, and has those wait that were freed since the last turn.
func (r *reuse) turn() {
	if r.open == nil {
		r.open = new([reuseClasses][]uint32)
	}
	for _, p := range r.waiting {
		r.open[p.units] = append(r.open[p.units], p.ref)
	}
	r.waiting, r.freed = r.freed, r.waiting[:0]
}

// reclaimLocked lets the active memtable use places again that no reader can look at any more. It is called with write
// held, by who has the turn: values of its own that it got before are not looked at any more.
//
// Readers count in the epoch in which they begin, of which two are told apart. While nobody is left in the older one, it
// ends: whoever could see a place that was freed before the last turn has gone.
func (e *Engine) reclaimLocked(m *memtable) {
	if !m.reuse.pending() {
		return
	}
	e.use.Lock()
	over := e.use.readers[(e.use.epoch+1)&1] == 0
	if over {
		e.use.epoch++
	}
	e.use.Unlock()
	if over {
		m.reuse.turn()
	}
}
