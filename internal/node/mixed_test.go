package node_test

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/understudy-kv/understudy/internal/eventually"
	"github.com/understudy-kv/understudy/internal/node"
	"github.com/understudy-kv/understudy/internal/store"
)

// A lateMix is a follower of which one shard loads a snapshot while its links are being ended.
type lateMix struct {
	node.Follower
	stopped, discarded atomic.Bool
}

func (f *lateMix) Stop(drain bool) error {
	defer f.stopped.Store(true)
	return f.Follower.Stop(drain)
}

func (f *lateMix) Mixed() error {
	if f.stopped.Load() {
		return errors.New("shard 0 is newer")
	}
	return nil
}

func (f *lateMix) Discard() error {
	f.discarded.Store(true)
	return f.Follower.Discard()
}

// Whether a promotion would mix two data sets is asked once the links have ended, when nothing can change it any more. A node
// that must refuse follows as before, and goes on with what was staged.
func TestPromotionBesideASnapshotThatIsLoaded(t *testing.T) {
	p := openNode(t, "p", "")
	p.fill("k", 10)
	a := openNode(t, "a", p.ReplicationAddr())
	a.ready()
	a.close()
	follow := a.opts.Follow
	var made []*lateMix
	a.opts.Follow = func(env node.FollowEnv) (node.Follower, error) {
		f, err := follow(env)
		if err != nil {
			return nil, err
		}
		made = append(made, &lateMix{Follower: f})
		return made[len(made)-1], nil
	}
	a.open()
	a.ready()
	if err := a.Promote(t.Context(), false); !errors.Is(err, node.ErrNotWhole) {
		t.Fatalf("the promotion gave %v", err)
	}
	if a.Role() != store.Replica || len(made) != 2 || made[0].discarded.Load() {
		t.Fatalf("the node is a %s, followers: %d, discarded: %t", a.Role(), len(made), made[0].discarded.Load())
	}
	p.do("SET", "after", "v")
	same(t, p, a)
	if err := a.Promote(t.Context(), true); err != nil || a.Role() != store.Primary {
		t.Fatalf("by force it is a %s, %v", a.Role(), err)
	}
	eventually.True(t, patience, "it takes writes", func() bool {
		_, err := a.Do(t.Context(), "SET", "by force", "v")
		return err == nil
	})
	if !made[1].discarded.Load() {
		t.Error("what was staged of the old primary is kept")
	}
}
