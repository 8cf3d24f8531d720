package keyspace

import (
	"sync/atomic"
	"time"

	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/wire"
)

// watcher is one WATCH of one session, from its first key to the EXEC, DISCARD or UNWATCH that ends it. A new WATCH
// takes a new watcher, so that a late report about an old one reaches nobody.
type watcher struct {
	dirty atomic.Bool // a watched key was changed
}

// watched is a watcher's interest in one key.
type watched struct {
	by      *watcher
	existed bool // at the time of the WATCH; the end of a key that had expired by then is no change
}

// watchTable knows which keys of one shard are watched. It belongs to that shard's loop: sessions reach it by jobs.
type watchTable struct {
	keys    map[string][]watched
	reaping bool // the reaper is at work: what it deletes had expired
	touch   func([]byte)
	flush   func()
	lookups lookups
}

func newWatchTable() *watchTable {
	t := &watchTable{keys: map[string][]watched{}}
	t.touch, t.flush = t.touched, t.touchedAll
	return t
}

// attach has the mutations of tx reported to the table.
func (t *watchTable) attach(tx *engine.Tx) {
	if tx.Touched == nil {
		tx.Touched, tx.TouchedAll = t.touch, t.flush
	}
}

func (t *watchTable) add(key []byte, w watched) {
	for _, have := range t.keys[string(key)] {
		if have.by == w.by {
			return // the first WATCH of a key is the one that counts
		}
	}
	t.keys[string(key)] = append(t.keys[string(key)], w)
}

func (t *watchTable) remove(key []byte, by *watcher) {
	list := t.keys[string(key)]
	for i, w := range list {
		if w.by == by {
			list[i] = list[len(list)-1]
			list[len(list)-1] = watched{}
			list = list[:len(list)-1]
			break
		}
	}
	if len(list) == 0 {
		delete(t.keys, string(key))
		return
	}
	t.keys[string(key)] = list
}

// existed reports what the watcher found when it began to watch the key.
func (t *watchTable) existed(key []byte, by *watcher) bool {
	for _, w := range t.keys[string(key)] {
		if w.by == by {
			return w.existed
		}
	}
	return false
}

func (t *watchTable) touched(key []byte) {
	if len(t.keys) == 0 {
		return
	}
	for _, w := range t.keys[string(key)] {
		if w.existed || !t.reaping {
			w.by.dirty.Store(true)
		}
	}
}

// touchedAll is FLUSHALL: it changes the watched keys that there are.
func (t *watchTable) touchedAll() {
	for _, list := range t.keys {
		for _, w := range list {
			if w.existed {
				w.by.dirty.Store(true)
			}
		}
	}
}

// observe finds the watched keys among what a replica was sent.
func (t *watchTable) observe(b wire.Batch) {
	if len(t.keys) == 0 {
		return
	}
	err := b.Each(func(op wire.Op) error {
		switch op.Kind {
		case wire.OpPut, wire.OpDelete:
			key, err := engine.DecodeKey(op.Key)
			if err != nil {
				return err
			}
			if key.Kind == engine.KeyData {
				t.touched(key.User)
			}
		case wire.OpDeleteRange:
			t.touchedAll()
		}
		return nil
	})
	if err != nil { // applied frames parse; should one not, then nobody can say what it changed
		t.touchedAll()
	}
}

// reapAtOnce is how many expired keys are deleted between two looks at the clock.
const reapAtOnce = 250

// reap deletes keys that are past their deadline, as one mutation of the group, until there are none, the group is full,
// or it has taken long enough.
func (t *watchTable) reap(g *shard.Group, budget time.Duration) (n int) {
	begun := time.Now()
	tx := txOf(g)
	t.attach(tx)
	t.reaping = true
	defer func() { t.reaping = false }()
	tx.Begin(&g.Builder, g.ID, g.NowMillis)
	for more := true; more && !g.Full() && time.Since(begun) < budget; {
		var reaped int
		reaped, more = tx.ReapExpired(reapAtOnce)
		n += reaped
	}
	if !tx.End() {
		return 0
	}
	return n
}
