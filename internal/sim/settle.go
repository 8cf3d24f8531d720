package sim

import (
	"context"
	"fmt"
	"time"

	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/status"
	"github.com/understudy-kv/understudy/internal/store"
)

// restLimit is how long the system may take to come to rest behind the last fault, in simulated time: silence (10 s), the
// longest waits between attempts (5 s, and 10 s for what waits for a person), a few times over.
const restLimit = 120 * time.Second

// settle ends every fault, acts as an operator who wants one primary and everybody else behind it, and waits until all
// nodes have the same.
func (w *world) settle() {
	w.event("the faults end")
	w.heal()
	for _, h := range w.hosts {
		if h.run != nil {
			h.run.disk.crash.Store(0)
			h.run.disk.full.Store(false)
		}
		w.begin(h)
	}
	if w.violation() != nil {
		return
	}
	deadline := time.Now().Add(restLimit)
	why := "no primary"
	for marked := 0; ; {
		w.settleDead()
		w.check()
		if w.violation() != nil {
			return
		}
		if time.Until(deadline) < restLimit-abortAfter {
			w.abort()
		}
		if len(w.tasks) == 0 {
			if h := w.elect(); h != nil {
				w.rally(h)
				if marked < 2 && w.mark(h) {
					marked++
				}
				if why = w.unequal(h); why == "" && marked == 2 {
					break
				}
			}
		}
		if time.Now().After(deadline) {
			w.fail(8, "%s after the last fault: %s", restLimit, why)
			return
		}
		time.Sleep(250 * time.Millisecond)
	}
	w.event("everybody has the same")
}

// abortAfter is how long the operator leaves a handover to itself.
const abortAfter = 20 * time.Second

// abort ends handovers that still run.
func (w *world) abort() {
	for _, h := range w.hosts {
		if f := h.run.node().Status().Failover; f != nil && f.State != status.FailoverNone {
			w.event("%s is told to give its handover up", h.name)
			_ = h.run.node().AbortFailover() // it may be over already
		}
	}
}

// elect finds the primary, or makes one.
func (w *world) elect() *host {
	if h := w.hosts[w.leader.Load()]; h.run.node().Role() == store.Primary {
		return h
	}
	for _, h := range w.hosts {
		if h.run.node().Role() == store.Primary {
			w.leader.Store(int64(h.id))
			return h
		}
	}
	best := w.hosts[0]
	for _, h := range w.hosts[1:] {
		if !h.mixed() && (best.mixed() || w.covers(h, best) && !w.covers(best, h)) {
			best = h
		}
	}
	for k := range w.hosts { // one that has nothing cannot be promoted
		h := w.hosts[(best.id+k)%len(w.hosts)]
		w.promote(h, Step{}.rng())
		if h.run.node().Role() == store.Primary {
			w.leader.Store(int64(h.id))
			return h
		}
	}
	return nil
}

// rally has everybody follow the primary.
func (w *world) rally(h *host) {
	for _, g := range w.hosts {
		if g != h && (g.run.node().Role() == store.Primary || g.run.node().Primary() != h.address()) {
			w.follow(g, h)
		}
	}
}

func shardOf(key string, shards int) int { return engine.ShardOf(engine.Slot([]byte(key)), shards) }

// mark writes to every shard: a primary without data is followed by nobody who has some.
func (w *world) mark(h *host) bool {
	for s := range w.sc.Shards {
		for k := 0; ; k++ {
			key := fmt.Sprint("mark", k)
			if shardOf(key, w.sc.Shards) != s {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_, err := h.run.node().Do(ctx, "SET", key, fmt.Sprint(time.Now().UnixNano()))
			cancel()
			if err != nil {
				return false
			}
			break
		}
	}
	return true
}

// unequal says what keeps the system from being at rest, or "".
func (w *world) unequal(h *host) string {
	for _, g := range w.hosts {
		mine, theirs := h.run.shards(), g.run.shards()
		if len(mine) != w.sc.Shards || len(theirs) != w.sc.Shards {
			return fmt.Sprintf("%s has %d shards", g.name, len(theirs))
		}
		for s := range mine {
			if mine[s].Position() != theirs[s].Position() || !theirs[s].Settled() {
				link := ""
				if f := g.run.node().Follower(); f != nil {
					for _, l := range f.Status() {
						if l.Shard == s && l.Link != nil {
							link = fmt.Sprintf(", its link is %s, refused %q, error %q", l.Link.State, l.Link.LastRefusal, l.Link.LastError)
						}
					}
				}
				return fmt.Sprintf("%s shard %d is at %s, the primary %s at %s%s", g.name, s, w.hist.position(theirs[s].Position()), h.name, w.hist.position(mine[s].Position()), link)
			}
			if err := theirs[s].Err(); err != nil {
				return fmt.Sprintf("%s shard %d: %v", g.name, s, err)
			}
		}
	}
	return ""
}
