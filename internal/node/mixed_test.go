package node_test

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/eventually"
	"github.com/understudy-kv/understudy/internal/node"
	"github.com/understudy-kv/understudy/internal/store"
	"github.com/understudy-kv/understudy/replica"
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

// A node whose shards may be of two histories is not promoted after a restart either, nor while it follows another primary
// that is not there; by force it is, and that is the end of it.
func TestPromotionOfAMixedDirectory(t *testing.T) {
	p := openNode(t, "p", "")
	p.fill("k", 10)
	r := openNode(t, "r", p.ReplicationAddr())
	r.ready()
	same(t, p, r)
	r.close()
	var data node.DataSets
	follow := r.opts.Follow
	r.opts.Follow = func(env node.FollowEnv) (node.Follower, error) {
		data = env.Store
		return follow(env)
	}
	r.open()
	eventually.True(t, patience, "what its first full sync has recorded is taken back", func() bool { return !data.Mixed() })
	if err := data.SetMixed(true); err != nil {
		t.Fatal(err)
	}
	r.close()
	p.close()
	r.open()
	for range 2 {
		if err := r.Promote(t.Context(), false); !errors.Is(err, node.ErrNotWhole) {
			t.Fatalf("the promotion gave %v", err)
		}
		r.follow("127.0.0.1:1")
	}
	if err := r.Promote(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	r.close()
	r.open()
	r.follow("127.0.0.1:1")
	r.promote()
	r.do("SET", "k", "v")
}

// half has the old primary of left follow the next one, of which it does not reach shard 1 until mended is true.
func half(t *testing.T, old, next *member, mended *atomic.Bool) {
	_, base, err := node.SplitAddress(next.ReplicationAddr())
	if err != nil {
		t.Fatal(err)
	}
	old.close()
	old.opts.Follow = replica.Follow(replica.FollowerOptions{
		Backoff: replica.Backoff{Min: 10 * time.Millisecond, Patient: 20 * time.Millisecond},
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			if strings.HasSuffix(address, ":"+strconv.Itoa(base+1)) && !mended.Load() {
				return nil, errors.New("the port is blocked")
			}
			var d net.Dialer
			return d.DialContext(ctx, "tcp", address)
		},
	})
	old.open()
	old.follow(next.ReplicationAddr())
}

// One shard has joined again by difference, and the other one cannot reach its port: the node's data is of two histories.
func TestPromotionBesideOneShardsRejoin(t *testing.T) {
	old, next := left(t)
	var mended atomic.Bool
	half(t, old, next, &mended)
	for range 2 {
		eventually.True(t, patience, "shard 0 is the new primary's", func() bool {
			s := old.Status().Shards[0]
			return s.Position == next.Status().Shards[0].Position && !s.Unsettled
		})
		if err := old.Promote(t.Context(), false); !errors.Is(err, node.ErrNotWhole) {
			t.Fatalf("the promotion gave %v", err)
		}
		old.close()
		old.open()
	}
	mended.Store(true)
	identical(t, next, old)
	old.ready()
	old.promote()
	if n := old.syncs() + next.syncs(); n != 0 {
		t.Errorf("%d full syncs", n)
	}
}

// Nobody takes anything from a node of two histories. So who follows it is what it was, whole, and can be promoted; or goes on once
// that node is whole.
func TestNobodyTakesFromAMixedNode(t *testing.T) {
	for _, goesOn := range []bool{true, false} {
		var below *member
		old, next := left(t, &below)
		before, had := below.Status().Shards, contents(t, below)
		var mended atomic.Bool
		half(t, old, next, &mended)
		eventually.True(t, patience, "shard 0 is the new primary's", func() bool {
			s := old.Status()
			return s.Mixed && s.Shards[0].Position == next.Status().Shards[0].Position && !s.Shards[0].Unsettled
		})
		below.follow(old.ReplicationAddr())
		fresh := openNode(t, "fresh", old.ReplicationAddr())
		for _, m := range []*member{below, fresh} {
			for try := range 2 {
				eventually.True(t, patience, "it is refused", func() bool {
					for _, s := range m.Status().Shards {
						if s.Refusals["loading"] <= uint64(try) {
							return false
						}
					}
					return len(m.Status().Shards) > 0
				})
			}
		}
		if now := below.Status().Shards; now[0].Position != before[0].Position || now[1].Position != before[1].Position || contents(t, below) != had {
			t.Fatalf("the replica below was at %s and %s, and is at %s and %s", before[0].Position, before[1].Position, now[0].Position, now[1].Position)
		}
		if err := fresh.Promote(t.Context(), false); !errors.Is(err, node.ErrNotWhole) {
			t.Fatalf("the promotion of who has nothing gave %v", err)
		}
		if !goesOn {
			below.promote()
			below.do("SET", "k", "v")
			continue
		}
		mended.Store(true)
		identical(t, next, old, below, fresh)
		if n := below.syncs(); n != 0 || old.Status().Mixed {
			t.Errorf("%d full syncs; mixed: %t", n, old.Status().Mixed)
		}
		for _, m := range []*member{fresh, below, old} {
			m.ready()
			m.promote()
		}
	}
}
