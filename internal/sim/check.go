package sim

import (
	"errors"
	"fmt"
	"maps"
	"testing/synctest"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/wire"
)

// track is what the checks remember of one shard of a host.
type track struct {
	run     *incarnation
	log     *backlog.Log
	polled  uint64 // everything before it is in the history
	last    wire.Position
	lineage wire.Lineage
	fold    fold
}

// check looks at everything at one moment, at which nobody is in the middle of anything that does not take time.
func (w *world) check() {
	synctest.Wait()
	w.overdue()
	hosts := w.up()
	for _, h := range hosts {
		for _, s := range h.run.shards() {
			w.checkHistory(h, s)
		}
	}
	for _, h := range hosts {
		for _, s := range h.run.shards() {
			w.checkData(h, s)
			w.checkBounds(h, s)
		}
		w.checkInboxes(h)
		if len(w.tasks) == 0 {
			h.begins = false
		}
	}
}

func (w *world) track(h *host, s *shard.Shard) *track {
	at := place{h.id, s.ID()}
	if w.tracks[at] == nil {
		w.tracks[at] = &track{}
	}
	return w.tracks[at]
}

// checkHistory takes in what a shard's log has gained, and compares it with what others have in its place.
func (w *world) checkHistory(h *host, s *shard.Shard) {
	t, l, log := w.track(h, s), s.Lineage(), s.Log()
	begun, err := w.hist.lineage(s.ID(), l)
	if err != nil {
		w.fail(1, "%s shard %d: %v", h.name, s.ID(), err)
	}
	for _, g := range begun {
		w.event("generation %s of shard %d begins at %s, offset %d", w.hist.name(g), s.ID(), h.name, w.hist.shards[s.ID()][g].first)
		if !w.mayBegin() {
			w.fail(3, "%s shard %d shows generation %s, and nothing in the schedule begins one", h.name, s.ID(), w.hist.name(g))
		}
	}
	if t.run != h.run || t.log != log || log.Published() < t.polled || !agree(t.fold.lineage, l, min(t.polled, t.fold.at)) {
		t.run, t.log, t.polled = h.run, log, 0
	}
	from := max(t.polled, log.Bounds().Oldest)
	err = log.Replay(from, func(f wire.Frame) error { return w.hist.add(s.ID(), l, f) })
	switch {
	case errors.Is(err, backlog.ErrEvicted) || errors.Is(err, backlog.ErrClosed):
	case err != nil:
		w.fail(1, "%s shard %d: %v", h.name, s.ID(), err)
	default:
		t.polled = log.Published()
	}
}

// mayBegin reports whether the schedule has done something that begins generations.
func (w *world) mayBegin() bool {
	for _, h := range w.hosts {
		if h.begins {
			return true
		}
	}
	return w.handing.Load()
}

// checkData compares what a shard holds with what the mutations of its lineage make.
func (w *world) checkData(h *host, s *shard.Shard) {
	t, l, at := w.track(h, s), s.Lineage(), s.Position()
	if t.last.Offset > 0 && at.Offset == 0 && !related(l, t.lineage) {
		w.fail(5, "%s shard %d was at %s and is empty", h.name, s.ID(), w.hist.position(t.last))
	}
	t.last, t.lineage = at, l
	if at.IsZero() || !s.Settled() || s.Err() != nil {
		return
	}
	w.checkPromises(h, s.ID(), l, at.Offset)
	has, err := dump(s)
	if err != nil {
		if !errors.Is(err, shard.ErrClosed) {
			w.fail(1, "%s shard %d cannot be read: %v", h.name, s.ID(), err)
		}
		return
	}
	if !t.fold.to(w.hist, s.ID(), l, at.Offset) {
		// The mutations before a snapshot were made, copied and lost to a crash between two checks.
		w.hist.shards[s.ID()][at.Generation].bases[at.Offset] = has
		return
	}
	if !maps.Equal(has, t.fold.data) {
		w.fail(1, "%s shard %d at %s is not what the history makes: %s", h.name, s.ID(), w.hist.position(at), difference(has, t.fold.data))
	}
}

// dump is everything that a shard holds, by engine key.
func dump(s *shard.Shard) (map[string]string, error) {
	var v *engine.View
	err := s.Use(func(m shard.StateMachine) (err error) {
		v, err = m.(*engine.Engine).NewView()
		return err
	})
	if err != nil {
		return nil, err
	}
	has := map[string]string{}
	from, to := engine.KeyspaceBounds()
	err = v.Raw(from, to, func(key, value []byte) bool {
		has[string(key)] = string(value)
		return true
	})
	return has, errors.Join(err, v.Close())
}

// difference tells the first key that differs.
func difference(has, want map[string]string) string {
	for k, v := range want {
		if got, ok := has[k]; !ok {
			return fmt.Sprintf("%d entries, want %d; %q is missing", len(has), len(want), k)
		} else if got != v {
			return fmt.Sprintf("%q has %q, want %q", k, clip([]byte(got)), clip([]byte(v)))
		}
	}
	for k := range has {
		if _, ok := want[k]; !ok {
			return fmt.Sprintf("%d entries, want %d; %q should not be there", len(has), len(want), k)
		}
	}
	return "none"
}

// checkBounds compares what the log holds with its limits.
func (w *world) checkBounds(h *host, s *shard.Shard) {
	b := s.Log().Bounds()
	memory := int64(64 << 10)
	if w.sc.Small {
		memory = smallMemory
	}
	if b.MemoryBytes > memory {
		w.fail(7, "%s shard %d holds %d bytes of backlog in memory, the limit is %d", h.name, s.ID(), b.MemoryBytes, memory)
	}
}

// checkInboxes compares what links have queued with the limit; the largest frame of a schedule comes on top.
func (w *world) checkInboxes(h *host) {
	f := h.run.node().Follower()
	if f == nil {
		return
	}
	for _, s := range f.Status() {
		if s.Link != nil && s.Link.InboxBytes > inboxBytes+16<<10 {
			w.fail(7, "%s shard %d has %d bytes in its inbox, the limit is %d", h.name, s.Shard, s.Link.InboxBytes, inboxBytes)
		}
	}
}
