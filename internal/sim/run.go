package sim

import (
	"fmt"
	"hash/fnv"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/internal/shard"
)

// Result is how a run went.
type Result struct {
	Violation  *Violation // nil if every invariant held
	Transcript []string
	Simulated  time.Duration
	Goroutines string // what each was at in a run that did not end; "" for all others
}

// Hash is of the transcript: equal hashes mean that the runs did the same at the same instants.
func (r Result) Hash() uint64 {
	h := fnv.New64a()
	for _, l := range r.Transcript {
		_, _ = h.Write([]byte(l)) // never fails
		_, _ = h.Write([]byte{'\n'})
	}
	return h.Sum64()
}

// Run runs a scenario. It may be called by several goroutines at a time. A nil logger is silent; what the nodes log is no
// part of the transcript. A run that does not end breaks invariant 4: its goroutines are told, stay, and may keep a
// processor busy, so the process should not go on for long.
func Run(sc Scenario, log hclog.Logger) Result {
	return watch(sc, log, limitsOf(sc), (*world).drive)
}

// drive runs the schedule, has the system come to rest, and ends it.
func (w *world) drive() {
	defer w.end()
	for _, h := range w.hosts {
		h.begins = true
		if err := h.start(); err != nil {
			w.fail(4, "%s does not start: %v", h.name, err)
			return
		}
		time.Sleep(3 * time.Millisecond)
	}
	w.check()
	for _, st := range w.sc.Steps {
		w.step(st)
		w.settleDead()
		time.Sleep(st.After)
		w.settleDead()
		w.check()
		if w.violation() != nil {
			return
		}
	}
	w.settle()
}

// settleDead takes processes away that died in the middle of something.
func (w *world) settleDead() {
	for _, h := range w.hosts {
		if i := h.run; i != nil && i.dead.Load() {
			<-i.gone
			how := "is killed"
			if h.dark.Load() {
				how = "loses power"
				w.unplug(h)
				for s := range w.sc.Shards {
					delete(w.tracks, place{h.id, s})
				}
				h.boot++
				if w.sc.Fsync != "always" {
					h.begins = true
				}
			}
			w.event("%s %s after %d operations of its disk", h.name, how, i.disk.ops.Load())
			h.disk, h.run = i.left, nil
			w.bury(i)
		}
	}
}

// bury closes a dead process's node, which is unreachable by now, so that its goroutines end.
func (w *world) bury(i *incarnation) {
	// The goroutine ends with Close; end waits for it.
	w.zombies.Go(func() { _ = i.node().Close() }) // of a process that is dead: whatever it says
}

// end stops everything.
func (w *world) end() {
	for _, h := range w.hosts {
		if h.run != nil {
			h.run.disk.full.Store(false)
			h.run.die(false, 0, nil)
			w.bury(h.run)
		}
	}
	for _, t := range w.tasks {
		<-t.done
	}
	w.zombies.Wait()
}

// stop ends a process cleanly.
func (w *world) stop(h *host) {
	i := h.run
	result := make(chan error, 1)
	w.spawn(h.name+" stopping", 40*time.Second, 40*time.Second, func() { result <- i.node().Close() })
	select {
	case err := <-result:
		if i.dead.Load() {
			return // it was killed meanwhile
		}
		w.event("%s stops (%v)", h.name, err)
		i.die(false, 0, nil)
		h.disk, h.run = i.left, nil
	default:
		w.fail(4, "%s does not stop", h.name)
	}
}

// begin starts a host that is down.
func (w *world) begin(h *host) {
	if h.run != nil {
		return
	}
	err := h.start()
	if err != nil {
		w.fail(4, "%s does not start: %v", h.name, err)
		return
	}
	w.event("%s starts as a %s%s", h.name, h.run.node().Role(), following(h))
}

func following(h *host) string {
	if p := h.run.node().Primary(); p != "" {
		return " of " + p
	}
	return ""
}

// step does one step.
func (w *world) step(st Step) {
	rng := st.rng()
	h := w.at(st.Node)
	other := w.hosts[st.Other]
	if needsHost(st.Kind) && h == nil {
		return
	}
	name := func(format string, args ...any) { w.event("%s: %s", st.Kind, fmt.Sprintf(format, args...)) }
	switch st.Kind {
	case Write, Wait:
		w.spawn("a client of "+h.name, 10*time.Millisecond, 30*time.Second, func() { w.write(h, st) })
	case Cut:
		if h != other {
			name("%s and %s, %d connections", h.name, other.name, w.net.cut(h.id, other.id, rng))
		}
	case Hole:
		if h != other {
			name("from %s to %s", h.name, other.name)
			w.net.block(h.id, other.id, true)
			if rng.IntN(3) == 0 {
				name("from %s to %s", other.name, h.name)
				w.net.block(other.id, h.id, true)
			}
		}
	case Heal:
		w.heal()
	case Slow:
		if h != other {
			d := time.Duration(20+rng.IntN(400)) * time.Millisecond
			name("from %s to %s, %s", h.name, other.name, d)
			w.net.slow(h.id, other.id, d)
		}
	case Kill, Power:
		power, percent := st.Kind == Power, 0
		if rng.IntN(3) == 0 {
			percent = rng.IntN(100)
		}
		i := h.run
		if rng.IntN(2) == 0 {
			n := int64(1 + rng.IntN(40))
			name("%s in the %d-th operation of its disk", h.name, n)
			i.disk.onCrash = func() { i.die(power, percent, rng) }
			i.disk.crash.Store(i.disk.ops.Load() + n)
			return
		}
		i.die(power, percent, rng)
	case Stop:
		w.stop(h)
	case Start:
		for k := range w.hosts {
			if g := w.hosts[(st.Other+k)%len(w.hosts)]; g.run == nil {
				w.begin(g)
				break
			}
		}
	case Promote:
		w.promote(h, rng)
	case Handover:
		w.handover(h, other, rng)
	case Retarget:
		if h != other {
			w.follow(h, other)
		}
	case Full:
		name("%s", h.name)
		h.run.disk.full.Store(true)
	case Free:
		for _, g := range w.up() {
			if g.run.disk.full.Swap(false) {
				name("%s", g.name)
			}
		}
	case Trim:
		for _, s := range h.run.shards() {
			w.trim(h, s)
		}
	case Wipe:
		w.wipe(h)
	}
}

func needsHost(k Kind) bool {
	switch k {
	case Heal, Start, Window, Free, Rest:
		return false
	}
	return true
}

func (w *world) heal() {
	w.event("heal")
	for a := range w.hosts {
		for b := range w.hosts {
			w.net.slow(a, b, usualLatency)
			w.net.block(a, b, false)
		}
	}
}

// trim has a shard do what its housekeeper does when recovery would have to read more than a MiB. Behind that only the last
// segment comes on top of the limit.
func (w *world) trim(h *host, s *shard.Shard) {
	err := s.Use(func(m shard.StateMachine) error { return m.Flush() })
	if err == nil {
		err = s.Trim()
	}
	if err != nil || h.run.dead.Load() || h.run.disk.full.Load() || !w.sc.Small {
		return
	}
	b := s.Log().Bounds()
	w.event("trim: %s shard %d has everything from %d on", h.name, s.ID(), b.Oldest)
	if b.Bytes > smallDisk {
		w.fail(7, "%s shard %d holds %d bytes of log on disk, the limit is %d", h.name, s.ID(), b.Bytes, smallDisk)
	}
}

// needed reports whether others may be in the middle of a rejoin, and none of them has data that is whole.
func (w *world) needed(h *host) bool {
	waits := false
	for _, g := range w.hosts {
		switch {
		case g == h:
		case g.run == nil:
			waits = true
		case len(g.run.shards()) == 0:
		default:
			whole := !g.mixed()
			waits = waits || !whole
			for _, s := range g.run.shards() {
				waits = waits || !s.Settled()
				whole = whole && s.Settled() && !s.Position().IsZero()
			}
			if whole {
				return false
			}
		}
	}
	return waits
}

// wipe empties a data directory, unless nobody else has data that is whole and somebody waits for the rest of theirs: who is in the middle of a
// rejoin by difference, or of going over to another history, needs a node that has everything, and nothing brings that back.
func (w *world) wipe(h *host) {
	if w.needed(h) {
		w.event("%s keeps its data, which others need", h.name)
		return
	}
	h.run.die(false, 0, nil)
	<-h.run.gone
	w.bury(h.run)
	w.event("%s is killed and its data directory emptied", h.name)
	h.run, h.disk, h.begins = nil, image{dirs: map[string]bool{"/": true}}.write(), true
	w.forget(h)
	for s := range w.sc.Shards {
		delete(w.tracks, place{h.id, s})
	}
	w.begin(h)
}
