package slottable

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/understudy-kv/understudy/wire"
)

// twin is the table told naively: a flat list of everything that is known, each question answered by walking it.
type twin struct {
	slots []*twinSlot
	lines []wire.Lineage
	next  Session
}

type twinSlot struct {
	replica, nonce wire.ID
	shard          int
	session        Session
	since          time.Duration   // detached since
	gen            wire.Generation // of the session
	hist           wire.Generation // of what is kept for it
	start, sent    uint64
	last           *wire.Ack // of this session
	known          *wire.Ack // of whatever session, in gen
	first          uint64    // the need before anything is known
	syncing        bool
	snapshot       wire.ID
	undoing        bool
	settles        uint64 // 0: its data is whole
}

func (w *twin) find(replica wire.ID, shard int) *twinSlot {
	for _, s := range w.slots {
		if s.replica == replica && s.shard == shard {
			return s
		}
	}
	return nil
}

func (w *twin) by(session Session) *twinSlot {
	for _, s := range w.slots {
		if session != 0 && s.session == session {
			return s
		}
	}
	return nil
}

func (w *twin) remove(f func(*twinSlot) bool) { w.slots = slices.DeleteFunc(w.slots, f) }

func (s *twinSlot) need() uint64 {
	if s.gen != s.hist {
		return s.first
	}
	if s.known != nil && s.known.Durable > 0 {
		return s.known.Durable
	}
	if s.known != nil && s.known.Applied > 0 {
		return s.known.Applied
	}
	return s.first
}

const (
	twinShards   = 2
	twinReplicas = 4
	twinLive     = 2
	twinSlots    = 3
)

func twinID(n int) wire.ID { return wire.ID{15: byte(n)} }

type machine struct {
	table *Table
	twin  twin
	now   time.Duration
	all   []Session
}

func (m *machine) attach(t *rapid.T) {
	a := Attachment{
		Shard:   rapid.IntRange(0, twinShards-1).Draw(t, "shard"),
		Replica: twinID(rapid.IntRange(1, twinReplicas).Draw(t, "replica")),
		Nonce:   twinID(rapid.IntRange(1, 2).Draw(t, "nonce")),
		Start:   rapid.Uint64Range(0, 50).Draw(t, "start"),
		Syncing: rapid.Bool().Draw(t, "syncing"),
	}
	a.Undoing = !a.Syncing && rapid.Bool().Draw(t, "undoing")
	if rapid.Bool().Draw(t, "unsettled") {
		a.Settles = rapid.Uint64Range(0, 50).Draw(t, "settles")
	}
	got, replaced, err := m.table.Attach(a, m.now)
	s := m.twin.find(a.Replica, a.Shard)
	live, slots := 0, 0
	for _, o := range m.twin.slots {
		if o.shard == a.Shard {
			slots++
			if o.session != 0 {
				live++
			}
		}
	}
	want := "ok"
	switch {
	case s != nil && s.session != 0 && s.nonce != a.Nonce:
		want = "*slottable.TakenError"
	case (s == nil || s.session == 0) && live >= twinLive, s == nil && slots >= twinSlots:
		want = "*slottable.FullError"
	}
	if err != nil {
		if fmt.Sprintf("%T", err) != want {
			t.Fatalf("attach: %v, the twin says %s", err, want)
		}
		return
	}
	if want != "ok" {
		t.Fatalf("attach succeeded, the twin says %s", want)
	}
	if s == nil {
		s = &twinSlot{replica: a.Replica, shard: a.Shard}
		m.twin.slots = append(m.twin.slots, s)
	}
	if replaced != s.session {
		t.Fatalf("attach replaced session %d, the twin had %d", replaced, s.session)
	}
	m.twin.next++
	if got != m.twin.next {
		t.Fatalf("attach gave session %d, want %d", got, m.twin.next)
	}
	if s.gen != m.twin.gen(a.Shard) || a.Syncing || a.Undoing {
		s.known = nil
	}
	if a.Settles > s.settles {
		s.settles = a.Settles
	}
	if a.Syncing || a.Undoing || a.Start >= s.settles {
		s.settles = 0
	}
	s.undoing = a.Undoing
	if s.known != nil {
		k := wire.Ack{Received: min(s.known.Received, a.Start), Applied: min(s.known.Applied, a.Start), Durable: min(s.known.Durable, a.Start)}
		s.known = &k
	}
	s.session, s.nonce, s.gen, s.start, s.sent, s.last, s.first = got, a.Nonce, m.twin.gen(a.Shard), a.Start, a.Start, nil, a.Start
	s.hist = s.gen
	s.syncing, s.snapshot = a.Syncing, wire.ID{}
	m.all = append(m.all, got)
}

func (m *machine) session(t *rapid.T) Session {
	if len(m.all) == 0 {
		t.Skip("no session yet")
	}
	return rapid.SampledFrom(m.all).Draw(t, "session")
}

func (m *machine) sync(t *rapid.T) {
	session, at := m.session(t), rapid.Uint64Range(0, 50).Draw(t, "at")
	err := m.table.Sync(session, twinID(9), at)
	s := m.twin.by(session)
	if ok := s != nil && s.syncing; ok != (err == nil) {
		t.Fatalf("sync: %v, the twin says %v", err, ok)
	} else if ok {
		s.snapshot, s.start, s.sent, s.first, s.last = twinID(9), at, at, at, nil
	}
}

func (m *machine) settles(t *rapid.T) {
	session, at := m.session(t), rapid.Uint64Range(0, 60).Draw(t, "at")
	err := m.table.Settles(session, at)
	s := m.twin.by(session)
	if ok := s != nil && s.undoing; ok != (err == nil) {
		t.Fatalf("settles: %v, the twin says %v", err, ok)
	} else if ok {
		s.settles = at
	}
}

func (m *machine) sent(t *rapid.T) {
	session, next := m.session(t), rapid.Uint64Range(0, 100).Draw(t, "next")
	err := m.table.Sent(session, next)
	if s := m.twin.by(session); (s != nil) != (err == nil) {
		t.Fatalf("sent: %v", err)
	} else if s != nil {
		s.sent = max(s.sent, next)
	}
}

func (m *machine) ack(t *rapid.T) {
	session := m.session(t)
	a := wire.Ack{
		Received: rapid.Uint64Range(0, 110).Draw(t, "received"),
		Applied:  rapid.Uint64Range(0, 110).Draw(t, "applied"),
		Durable:  rapid.Uint64Range(0, 110).Draw(t, "durable"),
	}
	if rapid.Bool().Draw(t, "ordered") {
		a.Applied = min(a.Applied, a.Received)
		a.Durable = min(a.Durable, a.Applied)
	}
	err := m.table.Ack(session, a, m.now)
	s := m.twin.by(session)
	ok := s != nil && a.Durable <= a.Applied && a.Applied <= a.Received && a.Received <= s.sent
	if ok && s.last != nil {
		ok = a.Received >= s.last.Received && a.Applied >= s.last.Applied && a.Durable >= s.last.Durable
	} else if ok && !s.syncing {
		ok = a.Applied >= s.start
	}
	if ok != (err == nil) {
		t.Fatalf("ack %+v: %v, the twin says %v", a, err, ok)
	}
	if ok && a.Applied >= s.settles {
		s.settles = 0
	}
	if ok && (!s.syncing || a.Applied >= s.start) {
		s.last, s.known, s.syncing, s.snapshot = &a, &a, false, wire.ID{}
	}
}

func (m *machine) detach(t *rapid.T) {
	session := m.session(t)
	m.table.Detach(session, m.now)
	if s := m.twin.by(session); s != nil {
		s.session, s.since = 0, m.now
		if s.gen != s.hist {
			s.gen, s.first, s.known = s.hist, s.need(), nil
		}
		m.twin.remove(func(o *twinSlot) bool {
			return o == s && (o.syncing && o.snapshot.IsZero() || !m.twin.lines[s.shard].Has(s.hist))
		})
	}
}

func (m *machine) reap(t *rapid.T) {
	window := time.Duration(rapid.IntRange(0, 10).Draw(t, "window"))
	got := m.table.Reap(m.now, window)
	before := len(m.twin.slots)
	m.twin.remove(func(s *twinSlot) bool { return s.session == 0 && m.now >= s.since+window })
	if before-len(m.twin.slots) != len(got) {
		t.Fatalf("reaped %d, the twin %d", len(got), before-len(m.twin.slots))
	}
}

// twinLines are the lineages that a shard may have: one history with its branches, and one that has nothing in common with it.
var twinLines = []wire.Lineage{
	{{Generation: wire.Generation{1}}},
	{{Generation: wire.Generation{1}}, {Generation: wire.Generation{2}, First: 20}},
	{{Generation: wire.Generation{1}}, {Generation: wire.Generation{2}, First: 20}, {Generation: wire.Generation{3}, First: 40}},
	{{Generation: wire.Generation{1}}, {Generation: wire.Generation{4}, First: 30}},
	{{Generation: wire.Generation{1}}, {Generation: wire.Generation{2}, First: 20}, {Generation: wire.Generation{5}, First: 20}},
	{{Generation: wire.Generation{9}}},
}

func (w *twin) gen(shard int) wire.Generation {
	return w.lines[shard][len(w.lines[shard])-1].Generation
}

// twinFork is the newest generation of the one lineage, at or before g, that the other one has, and where the two part.
func twinFork(from, to wire.Lineage, g wire.Generation) (wire.Generation, uint64, bool) {
	const far = 1 << 40
	end := func(l wire.Lineage, g wire.Generation) uint64 {
		for i := range l {
			if l[i].Generation == g && i+1 < len(l) {
				return l[i+1].First
			}
		}
		return far
	}
	best, at, seen, any := wire.Generation{}, uint64(far), false, false
	for _, e := range from {
		if !seen && to.Has(e.Generation) {
			best, at, any = e.Generation, end(to, e.Generation), true
			if e.Generation != g {
				at = min(at, end(from, e.Generation))
			}
		}
		seen = seen || e.Generation == g
	}
	return best, at, any && seen
}

func (m *machine) lineage(t *rapid.T) {
	shard, l := rapid.IntRange(0, twinShards-1).Draw(t, "shard"), rapid.SampledFrom(twinLines).Draw(t, "lineage")
	m.becomes(t, shard, l)
}

func (m *machine) becomes(t *rapid.T, shard int, l wire.Lineage) {
	gone := m.table.SetLineage(shard, l)
	before := m.twin.lines[shard]
	m.twin.lines[shard] = l
	if before.Equal(l) {
		return
	}
	lost := 0
	for _, s := range m.twin.slots {
		if s.shard != shard || s.gen == m.twin.gen(shard) {
			continue
		}
		s.first, s.known = s.need(), nil
		from := before
		if l.Has(s.hist) {
			from = wire.Lineage{{Generation: s.hist}}
		}
		hist, at, ok := twinFork(from, l, s.hist)
		if ok {
			s.hist, s.first = hist, min(s.first, at)
		}
		if s.session == 0 && ok {
			s.gen = hist
		} else if s.session == 0 {
			s.hist, lost = wire.Generation{}, lost+1
		}
	}
	m.twin.remove(func(s *twinSlot) bool { return s.shard == shard && s.hist.IsZero() })
	if len(gone) != lost {
		t.Fatalf("%d slots are gone, the twin says %d", len(gone), lost)
	}
}

func (m *machine) drop(t *rapid.T) {
	id := twinID(rapid.IntRange(1, twinReplicas).Draw(t, "replica"))
	n, err := m.table.Drop(id)
	before, attached := len(m.twin.slots), false
	for _, s := range m.twin.slots {
		attached = attached || s.replica == id && s.session != 0
	}
	if !attached {
		m.twin.remove(func(s *twinSlot) bool { return s.replica == id })
	}
	if n != before-len(m.twin.slots) || (n == 0) != (err != nil) {
		t.Fatalf("dropped %d slots, %v; the twin %d, attached %v", n, err, before-len(m.twin.slots), attached)
	}
}

// restart is a restart of the primary: what was exported comes back detached.
func (m *machine) restart(t *rapid.T) {
	records := m.table.Export()
	last := m.table.last
	m.table = New(twinShards, Limits{Live: twinLive, Slots: twinSlots})
	m.table.last = last
	m.table.Import(records, m.now)
	m.twin.remove(func(s *twinSlot) bool { return s.syncing && s.snapshot.IsZero() })
	for _, s := range m.twin.slots {
		s.session, s.since, s.nonce = 0, m.now, wire.ID{}
		s.first = s.need() // what a record says instead of where the session began
		if s.gen != s.hist {
			s.gen, s.known = s.hist, nil
		}
	}
	for i, l := range m.twin.lines {
		m.twin.lines[i] = nil
		m.becomes(t, i, l)
	}
}

func (m *machine) check(t *rapid.T) {
	if err := m.table.check(); err != nil {
		t.Fatal(err)
	}
	for shard := range twinShards {
		floor, any := uint64(0), false
		for _, s := range m.twin.slots {
			if s.shard == shard && (!any || s.need() < floor) {
				floor, any = s.need(), true
			}
		}
		if f, a := m.table.Floor(shard); f != floor || a != any {
			t.Fatalf("floor of shard %d: %d %v, the twin says %d %v", shard, f, a, floor, any)
		}
	}
	for _, offsets := range [][]uint64{{0, 0}, {10, 0}, {0, 30}, {20, 20}, {1}} {
		for _, level := range []Level{Applied, Durable} {
			if got, want := m.table.Count(offsets, level), m.twin.count(offsets, level); got != want {
				t.Fatalf("count %v at %d: %d, the twin says %d", offsets, level, got, want)
			}
		}
	}
}

func (w *twin) count(offsets []uint64, level Level) (n int) {
	for r := 1; r <= twinReplicas; r++ {
		want := map[int]uint64{}
		for shard, o := range offsets {
			if o > 0 {
				want[shard] = o
			}
		}
		for shard := 0; len(want) < twinShards && slices.Max(offsets) == 0 && shard < twinShards; shard++ {
			want[shard] = 0
		}
		ok := true
		for shard, o := range want {
			s := w.find(twinID(r), shard)
			ok = ok && s != nil && s.session != 0 && !s.syncing && s.settles == 0 && s.known != nil && s.gen == w.gen(shard) &&
				((level == Applied && s.known.Applied >= o) || (level == Durable && s.known.Durable >= o))
		}
		if ok {
			n++
		}
	}
	return n
}

// TestTableAgainstTwin runs random histories of handshakes, acks, cuts, reapings, restarts and changes of generation
// through the table and its twin (pitfalls 11, 12, 35, 37).
func TestTableAgainstTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{table: New(twinShards, Limits{Live: twinLive, Slots: twinSlots}), twin: twin{lines: make([]wire.Lineage, twinShards)}}
		for i := range m.twin.lines {
			m.becomes(t, i, twinLines[0])
		}
		t.Repeat(map[string]func(*rapid.T){
			"attach": m.attach, "sync": m.sync, "settles": m.settles, "sent": m.sent, "ack": m.ack, "detach": m.detach, "reap": m.reap,
			"lineage": m.lineage, "drop": m.drop, "restart": m.restart,
			"wait": func(t *rapid.T) { m.now += time.Duration(rapid.IntRange(1, 5).Draw(t, "by")) },
			"":     m.check,
		})
	})
}
