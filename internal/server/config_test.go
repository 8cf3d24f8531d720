package server

import (
	"testing"

	"github.com/understudy-kv/understudy/internal/shard"
)

func (f *fakeBackend) Fsync() shard.Fsync {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fsync
}

func (f *fakeBackend) SetFsync(p shard.Fsync) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fsync = p
	return nil
}

func TestShardOptionsOfConfig(t *testing.T) {
	r := start(t, 2, nil)
	if got := r.raw(t, "CONFIG SET appendfsync always\r\nSET a 1\r\nCONFIG GET fsync reconnect*"); got != "+OK|+OK|*4|$5|fsync|$6|always|$16|reconnect-window|$2|60|" {
		t.Errorf("got %s", got)
	}
	if p := r.node.Fsync(); p != shard.FsyncAlways {
		t.Errorf("the node syncs %s", p)
	}
}
