package sim

import (
	"slices"

	"github.com/understudy-kv/understudy/wire"
)

// promiseLocked adds what a host must go on to have. w.mu is held.
func (w *world) promiseLocked(at place, p promise) {
	list := slices.DeleteFunc(w.mu.promises[at], func(o promise) bool {
		return o.applied <= p.applied && o.durable <= p.durable && agree(o.lineage, p.lineage, o.applied)
	})
	w.mu.promises[at] = append(list, p)
}

func (w *world) promise(at place, p promise) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.promiseLocked(at, p)
}

// promised is a copy of what a host must have.
func (w *world) promised(at place) []promise {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.mu.promises[at])
}

// inherit has a host promise what another one has promised: it takes its place.
func (w *world) inherit(to, from *host, why string) {
	for s := range w.sc.Shards {
		for _, p := range w.promised(place{from.id, s}) {
			p.why, p.durable = why+" of "+p.why, 0
			w.promise(place{to.id, s}, p)
		}
	}
}

// unplug forgets what a loss of power may take.
func (w *world) unplug(h *host) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for s := range w.sc.Shards {
		at := place{h.id, s}
		list := w.mu.promises[at]
		for i := range list {
			list[i].applied = list[i].durable
		}
		w.mu.promises[at] = slices.DeleteFunc(list, func(p promise) bool { return p.applied == 0 })
	}
}

// forget releases a host whose data directory is gone.
func (w *world) forget(h *host) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for s := range w.sc.Shards {
		delete(w.mu.promises, place{h.id, s})
	}
}

// checkPromises looks whether a host still has what it must have, and lets go of what its history has left.
func (w *world) checkPromises(h *host, shard int, l wire.Lineage, applied uint64) {
	w.mu.Lock()
	list := w.mu.promises[place{h.id, shard}]
	var lost *promise
	list = slices.DeleteFunc(list, func(p promise) bool {
		if f := fork(p.lineage, l, p.applied); f < p.applied && f <= applied {
			return true
		}
		if applied < p.applied && lost == nil {
			lost = &p
		}
		return false
	})
	w.mu.promises[place{h.id, shard}] = list
	w.mu.Unlock()
	if lost != nil {
		w.fail(2, "%s shard %d is at %s and has lost what came before %s (%s)", h.name, shard,
			w.hist.position(l.At(applied)), w.hist.position(lost.lineage.At(lost.applied)), lost.why)
	}
}

// acked judges an ack at the moment at which it is sent.
func (w *world) acked(t *tap, a wire.Ack) {
	shard := int(t.hello.Shard)
	if a.Received < a.Applied || a.Applied < a.Durable {
		w.fail(6, "%s shard %d acks received %d, applied %d, durable %d", t.near.host.name, shard, a.Received, a.Applied, a.Durable)
	}
	if s := t.near.shards(); shard < len(s) {
		if has := s[shard].Position().Offset; a.Applied > has {
			w.fail(6, "%s shard %d acks %d as applied and is at %d", t.near.host.name, shard, a.Applied, has)
		}
		if has := s[shard].Durable(); a.Durable > has {
			w.fail(6, "%s shard %d acks %d as durable, and has %d", t.near.host.name, shard, a.Durable, has)
		}
	}
	p := promise{lineage: t.welcome.Lineage, applied: a.Applied, durable: a.Durable, why: "it acked that to " + t.far.host.name}
	at := place{t.near.host.id, shard}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.claims[claimant{t.far, at}] = p
	if a.Applied > 0 && !t.near.dead.Load() {
		w.promiseLocked(at, p)
	}
}

// witnesses counts the replicas of a process that have acked everything before the positions.
func (w *world) witnesses(i *incarnation, written []wire.Position, durable bool) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.hosts {
		has := h != i.host
		for s, p := range written {
			if p.IsZero() {
				continue
			}
			c, ok := w.mu.claims[claimant{i, place{h.id, s}}]
			acked := c.applied
			if durable {
				acked = c.durable
			}
			has = has && ok && acked >= p.Offset && c.lineage.Contains(p, acked)
		}
		if has {
			n++
		}
	}
	return n
}
