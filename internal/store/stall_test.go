package store_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/understudy-kv/understudy/internal/store"
)

// Who asks what the store knows does not wait for a disk that stands still in the middle of a change, and learns of the change only once it is
// durable. The end waits for it.
func TestNobodyWaitsForTheNodeFile(t *testing.T) {
	writing, goOn := make(chan struct{}), make(chan struct{})
	var armed atomic.Bool
	o := options(t.TempDir(), 2)
	o.Role = store.Replica
	o.Shard.FS = errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSync && strings.HasSuffix(op.Path, "node.json.tmp") && armed.CompareAndSwap(true, false) {
			close(writing)
			<-goOn
		}
		return nil
	}))
	s := open(t, o)
	id := s.NodeID()
	armed.Store(true)
	changed := make(chan error, 1)
	// It ends when the disk goes on.
	go func() { changed <- s.SetMixed(true) }()
	<-writing
	asked := make(chan struct{})
	// It ends with its questions.
	go func() {
		defer close(asked)
		if role, _ := s.Role(); s.Mixed() || len(s.Shards()) != 2 || role != store.Replica || s.NodeID() != id {
			t.Error("something changed before it was durable")
		}
	}()
	select {
	case <-asked:
	case <-time.After(20 * time.Second):
		t.Error("who asks waits for the disk")
	}
	closed := make(chan error, 1)
	// It ends behind the change.
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		t.Errorf("closed in the middle of a change: %v", err)
		closed <- err
	case <-time.After(50 * time.Millisecond):
	}
	close(goOn)
	if err := <-changed; err != nil || !s.Mixed() {
		t.Errorf("mixed %v, %v", s.Mixed(), err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	<-asked
}
