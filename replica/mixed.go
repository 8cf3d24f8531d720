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
	err := f.record(true, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return !f.mu.pending && f.mu.shards > 1 // readers see the shard, and another one
	})
	if err != nil {
		return fmt.Errorf("recording that one shard gets another state: %w", err)
	}
	return nil
}

// settle takes back what goOver has recorded once all shards stream, which means that they follow one primary.
func (f *Follower) settle() error {
	if !f.mixed.Load() {
		return nil // as with nearly every frame
	}
	if err := f.record(false, f.Streaming); err != nil {
		return fmt.Errorf("recording that the shards are of one history again: %w", err)
	}
	return nil
}

// record has the store remember whether the shards are mixed, if that is not what it does and the condition holds, and tells of it. Another
// link that finds it recorded goes on only behind that.
func (f *Follower) record(mixed bool, holds func() bool) error {
	f.layoutMu.Lock()
	defer f.layoutMu.Unlock()
	if f.mixed.Load() == mixed || !holds() {
		return nil
	}
	if err := f.opts.Store.SetMixed(mixed); err != nil {
		return err
	}
	f.mixed.Store(mixed)
	f.opts.OnChange()
	return nil
}
