package sim

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/understudy-kv/understudy/internal/node"
	"github.com/understudy-kv/understudy/internal/status"
	"github.com/understudy-kv/understudy/internal/store"
)

// Limits of calls, in simulated time.
const (
	promoteLimit = 3 * time.Second // it waits for nobody
	followLimit  = 20 * time.Second
	// A handover whose target has been asked goes on until it is answered, or an operator says ABORT.
	handoverLimit = time.Hour
)

// covers reports whether a host has, on every shard, everything that another one has.
func (w *world) covers(h, other *host) bool {
	mine, theirs := h.run.shards(), other.run.shards()
	if len(mine) != w.sc.Shards || len(theirs) != w.sc.Shards {
		return len(theirs) == 0
	}
	for s := range mine {
		l, has, p := mine[s].Lineage(), mine[s].Position(), theirs[s].Position()
		if has.IsZero() {
			return false
		}
		if !p.IsZero() && (p.Offset > has.Offset || !agree(l, theirs[s].Lineage(), p.Offset)) {
			return false
		}
	}
	return true
}

// promote is REPLICAOF NO ONE at a host. Usually the schedule acts as an operator should and takes the replica that has
// everything that the others have, if there is one, and none that says it is of two histories; then nothing that any of them has acked may be lost.
func (w *world) promote(h *host, rng *rand.Rand) {
	byOffset := rng.IntN(4) > 0
	var asked []*host
	for _, g := range w.up() {
		if g != h && g.run.node().Role() == store.Replica {
			asked = append(asked, g)
		}
	}
	if byOffset {
		for _, g := range asked {
			if !g.mixed() && (h.mixed() || w.covers(g, h) && !w.covers(h, g)) {
				h = g
			}
		}
		for _, g := range asked {
			byOffset = byOffset && (g == h || w.covers(h, g))
		}
	}
	if byOffset {
		for _, g := range asked {
			if g != h {
				w.inherit(h, g, "promoted in place")
			}
		}
	}
	h.begins = true
	i := h.run
	result := make(chan error, 1)
	w.spawn("the promotion of "+h.name, promoteLimit+time.Second, promoteLimit, func() { result <- i.node().Promote(context.Background(), false) })
	var err error
	select {
	case err = <-result:
	default:
		return
	}
	if i.dead.Load() {
		return
	}
	w.event("%s is promoted (%v)%s", h.name, err, map[bool]string{true: " by offset"}[byOffset])
	if err != nil {
		if byOffset {
			for s := range w.sc.Shards {
				w.release(place{h.id, s})
			}
		}
		return
	}
	w.leader.Store(int64(h.id))
	if rng.IntN(5) > 0 {
		for _, g := range w.up() {
			if g != h {
				w.follow(g, h)
			}
		}
	}
}

// mixed reports whether the host, which is up, says that its shards may be of two histories: it cannot be promoted.
func (h *host) mixed() bool { return h.run.node().Status().Mixed }

// release lets a host go of what it was to inherit by a promotion that did not happen.
func (w *world) release(at place) {
	w.mu.Lock()
	defer w.mu.Unlock()
	kept := w.mu.promises[at][:0]
	for _, p := range w.mu.promises[at] {
		if !strings.HasPrefix(p.why, "promoted in place") {
			kept = append(kept, p)
		}
	}
	w.mu.promises[at] = kept
}

// follow is REPLICAOF another.
func (w *world) follow(h, to *host) {
	i := h.run
	result := make(chan error, 1)
	w.spawn(h.name+" following "+to.name, followLimit+time.Second, followLimit, func() {
		_, err := i.node().Follow(context.Background(), to.address())
		result <- err
	})
	select {
	case err := <-result:
		if i.dead.Load() {
			return
		}
		text := ""
		if err != nil {
			text = ": " + firstWords(err)
		}
		w.event("%s is told to follow %s%s", h.name, to.name, text)
	default:
	}
}

// firstWords are the part of an error that is the same in each run.
func firstWords(err error) string {
	if errors.Is(err, node.ErrLoop) {
		return "loop"
	}
	text, _, _ := strings.Cut(err.Error(), ":")
	return text
}

// handover is FAILOVER at a host.
func (w *world) handover(h, to *host, rng *rand.Rand) {
	r := node.FailoverRequest{Timeout: time.Duration(100+rng.IntN(3000)) * time.Millisecond}
	if to != h && rng.IntN(2) == 0 {
		r.Target = to.address()
	}
	i := h.run
	if err := i.node().Failover(context.Background(), r); err != nil {
		w.event("%s is to hand over: %s", h.name, firstWords(err))
		return
	}
	for _, g := range w.hosts {
		g.begins = true
	}
	w.event("%s is to hand over", h.name)
	w.handing.Store(true)
	wait := time.Duration(rng.IntN(1500)) * time.Millisecond
	abort := rng.IntN(6) == 0
	w.spawn("the handover of "+h.name, wait, handoverLimit, func() {
		if abort {
			time.Sleep(wait / 2)
			_ = i.node().AbortFailover() // it may be over already
		}
		for !i.dead.Load() {
			if f := i.node().Status().Failover; f.State == status.FailoverNone {
				w.handing.Store(i.dead.Load())
				w.handedOver(h, i, f)
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
}

// handedOver notes how a handover went. The target takes the promises over.
func (w *world) handedOver(h *host, i *incarnation, f *status.Failover) {
	w.event("%s has handed over to %s: %s", h.name, f.Target, f.Result)
	if f.Result != "done" {
		return
	}
	for _, g := range w.hosts {
		if g.address() == f.Target {
			w.inherit(g, h, "handed over")
			w.leader.Store(int64(g.id))
		}
	}
}
