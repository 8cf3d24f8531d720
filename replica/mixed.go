package replica

import "fmt"

// Mixed tells why the shards that readers see may hold states of two histories: one has loaded a snapshot, or undone a
// surplus, and they have not all streamed at the same time since. The data directory remembers it, over restarts and
// changes of the primary. It is nil when they do not. Behind Stop it is final.
func (f *Follower) Mixed() error {
	if err := f.settle(); err != nil {
		return err
	}
	if !f.mixed.Load() {
		return nil
	}
	f.mu.Lock()
	pending := f.mu.pending
	f.mu.Unlock()
	if pending {
		return fmt.Errorf("one of the shards that readers see has gone over to a primary's data, and another one has not")
	}
	// Which one lacks it is the follower's to say as far as it has heard of them.
	over, waiting, state := -1, -1, State(0)
	for _, r := range f.runners() {
		switch g := r.figures(); {
		case !g.Owes && (len(g.FullSyncs) > 0 || g.Rewinds > 0):
			over = r.id
		case waiting < 0 || g.Owes:
			waiting, state = r.id, g.State
		}
	}
	switch {
	case waiting < 0:
		return fmt.Errorf("the shards have gone over to a primary's data, and have not all streamed at the same time since: one may be older, or of another history")
	case over < 0:
		return fmt.Errorf("a shard has gone over to a primary's data, and shard %d (its link: %s) has not streamed with the others since: one may be older, or of another history", waiting, state)
	}
	return fmt.Errorf("shard %d has gone over to the primary's data and shard %d (its link: %s) has not: it is older, or of another history", over, waiting, state)
}

// goOver records that a shard's state is about to be replaced, or taken back. Until the others stream beside it, the node
// may not know what history they are of: their links may be down, and the primary gone before they come up.
func (f *Follower) goOver() error {
	f.layoutMu.Lock()
	defer f.layoutMu.Unlock()
	f.mu.Lock()
	alone := f.mu.pending || f.mu.shards < 2 // readers do not see the shard, or no other one
	f.mu.Unlock()
	if alone || f.mixed.Load() {
		return nil
	}
	if err := f.opts.Store.SetMixed(true); err != nil {
		return fmt.Errorf("recording that one shard gets another state: %w", err)
	}
	f.mixed.Store(true)
	return nil
}

// settle takes back what goOver has recorded once all shards stream, which means that they follow one primary.
func (f *Follower) settle() error {
	if !f.mixed.Load() {
		return nil
	}
	f.layoutMu.Lock()
	defer f.layoutMu.Unlock()
	if !f.mixed.Load() || !f.Streaming() {
		return nil
	}
	if err := f.opts.Store.SetMixed(false); err != nil {
		return fmt.Errorf("recording that the shards are of one history again: %w", err)
	}
	f.mixed.Store(false)
	return nil
}
