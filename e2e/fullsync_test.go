package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/faultproxy"
)

// snapshotBytes is what the replica's links received of snapshots since its process started.
func (n *node) snapshotBytes() (total uint64) {
	n.t.Helper()
	for _, s := range n.mustStatus().Shards {
		if s.Link != nil {
			total += s.Link.SnapshotBytes
		}
	}
	return total
}

// syncTotal is the size of the full sync that runs, 0 when none does.
func (n *node) syncTotal() (total uint64) {
	n.t.Helper()
	for _, s := range n.mustStatus().Shards {
		if s.Link != nil && s.Link.Sync != nil {
			total += s.Link.Sync.Total
		}
	}
	return total
}

// TestFullSyncCut: link cut in the middle of a full sync, several times: it goes on where it stopped. The counter of
// snapshot bytes shows that they were not sent again.
func TestFullSyncCut(t *testing.T) {
	t.Parallel()
	p := prepare(t, setup{shards: 1, replica: []string{"--sync-rate", "8MiB"}})
	p.primary.start()
	p.primary.fill("k", 40*mib, 4096)
	p.replica.start()
	l := p.primary.startLoad(loadOptions{clients: 1, pause: 5 * time.Millisecond})
	var total uint64
	for i := range 3 {
		want := uint64(8+8*i) * mib
		eventually(t, 30*time.Second, "the full sync is on its way", func() error {
			total = max(total, p.replica.syncTotal())
			return errorf(p.replica.snapshotBytes() > want, "%d bytes of %d", p.replica.snapshotBytes(), total)
		})
		p.proxy.Cut()
	}
	p.waitStreaming(40 * time.Second)
	l.stop()
	p.waitIdentical(20 * time.Second)
	l.check(p.replica)
	got := p.replica.snapshotBytes()
	if total < 30*mib || got < total || got > total+total/8+3*mib {
		t.Errorf("%d bytes of a snapshot of %d were received over three cuts", got, total)
	}
}

// TestFullSyncReplicaKilled: the same over kill -9 of the replica, and of the primary.
func TestFullSyncKilled(t *testing.T) {
	t.Parallel()
	for _, who := range []string{"replica", "primary"} {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			p := prepare(t, setup{shards: 1, replica: []string{"--sync-rate", "8MiB"}})
			p.primary.start()
			p.primary.fill("k", 32*mib, 4096)
			p.replica.start()
			var first uint64
			eventually(t, 30*time.Second, "half of the full sync is over", func() error {
				first = p.replica.snapshotBytes()
				return errorf(first > 12*mib, "%d bytes", first)
			})
			if who == "replica" {
				p.replica.kill()
				p.replica.start()
			} else {
				p.primary.kill()
				p.primary.start()
				first = 0 // The replica's counter goes on.
			}
			var total uint64
			eventually(t, 30*time.Second, "the full sync goes on", func() error {
				total = p.replica.syncTotal()
				return errorf(total > 0, "no full sync runs")
			})
			p.waitStreaming(40 * time.Second)
			p.waitIdentical(20 * time.Second)
			// What was received before the kill and not yet checked, at most some chunks, may come again.
			if got := p.replica.snapshotBytes() + first; got > total+total/8+4*mib {
				t.Errorf("%d bytes of a snapshot of %d were received", got, total)
			}
		})
	}
}

// TestShardLayoutSyncKilled: a replica that is killed while it fetches a data set of another shard count, beside its own, goes on
// where it was.
func TestShardLayoutSyncKilled(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{shards: 1, replica: []string{"--sync-rate", "4MiB"}})
	p.primary.fill("mine", mib, 1000)
	p.waitCaughtUp(20 * time.Second)
	other := newPrimaryNamed(t, "other", 2).start()
	other.fill("other", 32*mib, 4096)
	p.replica.follow(other)
	var first uint64
	before := p.replica.snapshotBytes()
	eventually(t, 30*time.Second, "half of the full syncs is over", func() error {
		first = p.replica.snapshotBytes() - before
		return errorf(first > 14*mib, "%d bytes", first)
	})
	p.replica.kill()
	p.replica.start()
	eventually(t, 60*time.Second, "the other data set is there", func() error { return streaming(p.replica, 2) })
	mirrors(t, other, p.replica)
	// What was received before the kill and not yet checked, at most some chunks, may come again.
	if got := p.replica.snapshotBytes() + first; got > 32*mib+32*mib/8+8*mib {
		t.Errorf("%d bytes of snapshots of 32 MiB were received", got)
	}
}

// TestFullSyncUnderLoad: write rate above link rate during a full sync: frames are retained on disk within the cap, and the
// sync ends once the writing does, or fails with a stated reason on the way.
func TestFullSyncUnderLoad(t *testing.T) {
	t.Parallel()
	p := prepare(t, setup{shards: 1, primary: []string{"--backlog-memory", "2MiB", "--backlog-keep", "4MiB", "--backlog-disk", "512MiB"}})
	p.primary.start()
	p.primary.fill("k", 16*mib, 4096)
	p.proxy.Limit(faultproxy.ToClient, 6*mib)
	p.replica.start()
	// So many clients that what they write is more than the link takes even where each write takes some milliseconds.
	l := p.primary.startLoad(loadOptions{value: 4096, clients: 8, pause: time.Millisecond})
	eventually(t, 2*time.Minute, "the primary has written more than the link took", func() error {
		disk, memory := p.primary.logBytes()
		if memory > 4*mib {
			t.Fatalf("%d bytes of backlog in memory", memory)
		}
		return errorf(disk > 60*mib, "%d bytes of log", disk)
	})
	l.stop()
	p.proxy.Limit(faultproxy.ToClient, 0)
	p.waitStreaming(40 * time.Second)
	p.waitIdentical(40 * time.Second)
	l.check(p.replica)
}

// TestServesOldData: during a full sync the replica serves its old data and says that it is stale; with
// --no-serve-stale it answers -LOADING; and the switch is atomic for a reader of one shard (pitfalls 17 and 18).
func TestServesOldData(t *testing.T) {
	t.Parallel()
	for _, serve := range []bool{true, false} {
		t.Run(fmt.Sprintf("serve-stale=%t", serve), func(t *testing.T) {
			t.Parallel()
			flags := []string{"--sync-rate", "8MiB"}
			if !serve {
				flags = append(flags, "--no-serve-stale")
			}
			p := newPair(t, setup{
				shards:  1,
				primary: []string{"--backlog-memory", "1MiB", "--backlog-keep", "1MiB", "--backlog-disk", "8MiB"}, replica: flags,
			})
			p.primary.set("version", "old")
			p.waitCaughtUp(10 * time.Second)
			must(t, p.proxy.Down())
			p.primary.set("version", "new")
			p.primary.fill("k", 32*mib, 4096)
			must(t, p.proxy.Up())
			seen := ""
			eventually(t, 30*time.Second, "a full sync runs", func() error {
				return errorf(p.replica.syncTotal() > 0, "none does")
			})
			if serve {
				value, err := p.replica.rdb.Get(t.Context(), "version").Result()
				seen = value
				if err != nil || value != "old" {
					t.Errorf("during the full sync: %q, %v, want the old value", value, err)
				}
				if l := p.replica.mustStatus().Shards[0].Link; !l.Stale {
					t.Errorf("the link does not say that its data is stale: %+v", l)
				}
			} else if _, err := p.replica.rdb.Get(t.Context(), "version").Result(); err == nil || len(err.Error()) < 8 || err.Error()[:8] != "LOADING " {
				t.Errorf("during the full sync: %v, want -LOADING", err)
			}
			if p.replica.syncTotal() == 0 {
				t.Logf("the full sync was over before the replica was asked (%s)", seen)
			}
			p.waitStreaming(40 * time.Second)
			p.waitIdentical(20 * time.Second)
			wantEqual(t, "full syncs for evicted", p.replica.counters().fullSyncs["evicted"], 1)
		})
	}
}
