package keyspace

import (
	"github.com/understudy-kv/understudy/internal/resp"
	"github.com/understudy-kv/understudy/internal/shard"
)

// watchedKey is a key that the session watches.
type watchedKey struct {
	shard   int
	key     []byte
	machine shard.StateMachine // that held the key; another one means that a snapshot was installed
}

// watchKeys is WATCH. The keys are watched when it returns.
func (s *Session) watchKeys(keys [][]byte, w *resp.Writer) {
	if s.multi.open {
		w.Error(errWatchMulti)
		return
	}
	if len(s.on.shards) == 0 {
		w.Error(errLoading)
		return
	}
	if s.watch == nil {
		s.watch, s.watchOn = new(watcher), s.on
	}
	if !sameShards(s.watchOn, s.on) {
		s.watch.dirty.Store(true) // the keys of before are gone, so EXEC will fail in any case
		w.OK()
		return
	}
	by := s.watch
	for _, key := range keys {
		k := watchedKey{shard: s.shardOf(key), key: append([]byte(nil), key...)}
		table := s.on.tables[k.shard]
		o := onLoop(s.on.shards[k.shard], func(g *shard.Group) bool {
			if g.Builder.Count() > 0 {
				return false // so that what is seen is committed
			}
			tx := txOf(g)
			table.attach(tx)
			tx.Begin(&g.Builder, g.ID, g.NowMillis)
			_, existed := tx.Get(k.key)
			tx.End()
			table.add(k.key, watched{by: by, existed: existed})
			k.machine = g.StateMachine
			return true
		})
		if o.err != nil {
			w.Error(shardErrorText(k.shard, o.err))
			return
		}
		s.watches = append(s.watches, k)
	}
	w.OK()
}

// unwatch gives up all watched keys. It does not wait for the shards: what they still report goes to a watcher that
// nobody asks any more.
func (s *Session) unwatch() {
	if s.watch == nil {
		return
	}
	by := s.watch
	byShard := map[int][][]byte{}
	for _, k := range s.watches {
		byShard[k.shard] = append(byShard[k.shard], k.key)
	}
	for id, keys := range byShard {
		table := s.watchOn.tables[id]
		c := &call{on: s.watchOn.shards[id], result: make(chan outcome, 1), run: func(*shard.Group) bool {
			for _, key := range keys {
				table.remove(key, by)
			}
			return true
		}}
		// A shard that is closed has no use for its table any more.
		_ = s.watchOn.shards[id].Submit(c)
	}
	s.watch, s.watchOn, s.watches = nil, nil, nil
}

// watchedChanged reports whether a watched key was changed. The shards of all watched keys are in the transaction's
// hands, so it is true of the moment at which the transaction runs.
func (s *Session) watchedChanged(grips []*grip) bool {
	if s.watch == nil {
		return false
	}
	if s.watch.dirty.Load() {
		return true
	}
	for _, k := range s.watches {
		h := grips[k.shard]
		if h.group.StateMachine != k.machine {
			return true
		}
		if !h.watch.existed(k.key, s.watch) {
			continue
		}
		// It may have expired without having been deleted.
		h.begin()
		_, exists := h.tx.Get(k.key)
		h.tx.End()
		if !exists {
			return true
		}
	}
	return false
}

// sameShards reports whether two sets have the same shards; their modes may differ.
func sameShards(a, b *set) bool {
	return len(a.shards) == len(b.shards) && (len(a.shards) == 0 || &a.shards[0] == &b.shards[0])
}
