package node_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/eventually"
	"github.com/understudy-kv/understudy/internal/shard"
)

// What was changed while a node runs holds for the logs and the data sets that it gets later: by a full sync of the same
// shards, and by one that brings another shard count.
func TestSettingsOutliveTheDataSet(t *testing.T) {
	p := openNode(t, "p", "")
	p.fill("k", 10)
	a := openNode(t, "a", p.ReplicationAddr())
	a.ready()
	same(t, p, a)
	const keep, disk, window = 3 << 20, 5 << 20, 7 * time.Minute
	if err := a.SetBacklogLimits(keep, disk); err != nil {
		t.Fatal(err)
	}
	if err := a.SetFsync(shard.FsyncAlways); err != nil {
		t.Fatal(err)
	}
	a.SetReconnectWindow(window)
	check := func(when string, shards int) {
		t.Helper()
		all := a.Status().Shards
		if len(all) != shards {
			t.Fatalf("%s: %d shards, want %d", when, len(all), shards)
		}
		for _, s := range all {
			if s.Log.Keep != keep || s.Log.Disk != disk || s.Log.SyncPolicy != string(shard.FsyncAlways) {
				t.Errorf("%s: shard %d keeps %d of %d bytes and syncs %s", when, s.Shard, s.Log.Keep, s.Log.Disk, s.Log.SyncPolicy)
			}
		}
		if got := a.Server().ReconnectWindow(); got != window {
			t.Errorf("%s: the reconnect window is %s", when, got)
		}
	}
	check("at first", 2)
	for i, shards := range []int{2, 3} {
		other := openNode(t, "other", "")
		if shards != other.opts.Shards {
			other.close()
			other.opts.Dir, other.opts.Shards = filepath.Join(t.TempDir(), "wide"), shards
			other.open()
		}
		other.fill("o", 20)
		before := a.syncs()
		a.follow(other.ReplicationAddr())
		eventually.True(t, patience, "the other primary's data is there", func() bool {
			return a.syncs() >= before+min(uint64(shards), 2) && a.Follower() != nil && a.Follower().Streaming() && len(a.Shards()) == shards
		})
		a.ready()
		same(t, other, a)
		check([]string{"behind a full sync", "with another shard count"}[i], shards)
	}
}
