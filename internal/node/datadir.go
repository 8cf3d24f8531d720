package node

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/internal/store"
)

// dataDir is a node's data directory as its follower's [DataSets]. Every data set has caches of its own, since their sizes
// follow from the shard count, which a replica learns late.
type dataDir struct {
	store *store.Store
	// newEngines makes the caches for a number of shards; nil with a state machine of the program's own.
	newEngines func(shards int) *store.Engines
	// show changes what readers see; none hides everything.
	show func([]*shard.Shard)

	opening atomic.Pointer[store.Engines] // of the data set whose shards are being opened

	mu struct {
		sync.Mutex
		engines     *store.Engines // of the store's data set
		next        *store.Dataset // made and not switched to
		nextEngines *store.Engines
		retired     []*store.Engines // of data sets that were given up; closed last, since an Install may have used them
	}
}

// factory opens Pebble with the caches that were made last.
func (d *dataDir) factory(env shard.Env) (shard.StateMachine, error) {
	return d.opening.Load().Open(env)
}

// prepare makes the caches for n shards.
func (d *dataDir) prepare(n int) *store.Engines {
	if d.newEngines == nil {
		return nil
	}
	e := d.newEngines(n)
	d.opening.Store(e)
	return e
}

// Shards is part of [DataSets].
func (d *dataDir) Shards() []*shard.Shard { return d.store.Shards() }

// all are the open shards of every data set.
func (d *dataDir) all() []*shard.Shard {
	d.mu.Lock()
	next := d.mu.next
	d.mu.Unlock()
	shards := slices.Clone(d.store.Shards())
	if next != nil {
		shards = append(shards, next.Shards()...)
	}
	return shards
}

// NewDataset is part of [DataSets].
func (d *dataDir) NewDataset(n int) ([]*shard.Shard, error) {
	d.mu.Lock()
	next := d.mu.next
	d.mu.Unlock()
	if next != nil && len(next.Shards()) == n {
		return next.Shards(), nil
	}
	if next != nil {
		if err := d.discard(); err != nil {
			return nil, err
		}
	}
	engines := d.prepare(n)
	next, err := d.store.NewDataset(n)
	if err != nil {
		closeEngines(engines)
		return nil, err
	}
	d.mu.Lock()
	d.mu.next, d.mu.nextEngines = next, engines
	d.mu.Unlock()
	return next.Shards(), nil
}

// Switch is part of [DataSets]. Readers leave the old shards before these are closed.
func (d *dataDir) Switch() error {
	d.mu.Lock()
	next, engines, old := d.mu.next, d.mu.nextEngines, d.mu.engines
	d.mu.Unlock()
	if next == nil {
		return errors.New("node: there is no data set to switch to")
	}
	d.show(next.Shards())
	err := d.store.Switch(next)
	if d.store.Dataset() != next {
		d.show(d.store.Shards())
		return err
	}
	d.mu.Lock()
	d.mu.next, d.mu.nextEngines, d.mu.engines = nil, nil, engines
	d.mu.Unlock()
	closeEngines(old)
	return err
}

// SetMixed is part of [DataSets].
func (d *dataDir) SetMixed(mixed bool) error { return d.store.SetMixed(mixed) }

// Mixed is part of [DataSets].
func (d *dataDir) Mixed() bool { return d.store.Mixed() }

// discard gives up a data set that was not switched to.
func (d *dataDir) discard() error {
	d.mu.Lock()
	next, engines := d.mu.next, d.mu.nextEngines
	d.mu.next, d.mu.nextEngines = nil, nil
	d.mu.Unlock()
	if next == nil {
		return d.store.DiscardBegun()
	}
	d.mu.Lock()
	d.mu.retired = append(d.mu.retired, engines)
	d.mu.Unlock()
	return d.store.Discard(next)
}

// close stops everything cleanly. The follower has been closed.
func (d *dataDir) close() error {
	err := d.store.Close()
	d.mu.Lock()
	engines := append(d.mu.retired, d.mu.nextEngines, d.mu.engines)
	d.mu.retired, d.mu.next, d.mu.nextEngines, d.mu.engines = nil, nil, nil, nil
	d.mu.Unlock()
	for _, e := range engines {
		closeEngines(e)
	}
	return err
}

func closeEngines(e *store.Engines) {
	if e != nil {
		e.Close()
	}
}
