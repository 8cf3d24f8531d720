package shard_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/understudy-kv/understudy/internal/shard"
)

// Every file operation of a switch fails, in turn, once or with all behind it that do not delete, and then the process is
// killed: what opens is the old data or the new, never a manifest that names what was given up (pitfall 19).
func TestInstallFaultThenKill(t *testing.T) {
	for _, lasting := range []bool{false, true} {
		t.Run(fmt.Sprint("lasting=", lasting), func(t *testing.T) { installFaults(t, lasting) })
	}
}

func installFaults(t *testing.T, lasting bool) {
	source := open(t, options(vfs.NewMem()))
	for i := range 7 {
		mustWrite(t, source, fmt.Sprint("new", i), "v")
	}
	for k := int64(1); ; k++ {
		mem := vfs.NewMem()
		var count atomic.Int64
		var armed, dead atomic.Bool
		hit := false
		injected := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if dead.Load() {
				return errorfs.ErrInjected
			}
			if !armed.Load() || op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
				return nil
			}
			n := count.Add(1)
			hit = hit || n == k
			if n == k || lasting && n > k && op.Kind != errorfs.OpRemoveAll && op.Kind != errorfs.OpFileClose {
				return errorfs.ErrInjected
			}
			return nil
		}))
		o := options(injected)
		s := open(t, o)
		mustWrite(t, s, "old", "v")
		demote(t, s)
		o.Writable = false
		staged := filledDir(t, mem, "/staged", source, 7)
		armed.Store(true)
		err := s.Install(staged, source.Position(), source.Lineage())
		armed.Store(false)
		if err != nil && !errors.Is(err, errorfs.ErrInjected) {
			t.Fatalf("fault at operation %d: %v", k, err)
		}
		dead.Store(true)
		o.FS, o.Open = mem, factory(mem, new(atomic.Bool))
		again, openErr := shard.Open(o)
		if openErr != nil {
			t.Fatalf("fault at operation %d, which the switch told as %v: the next start failed: %v", k, err, openErr)
		}
		got := data(t, again)
		if _, old := got["old"]; old && (len(got) != 1 || again.Position() != s.Position() && err != nil) || !old && again.Position() != source.Position() {
			t.Fatalf("fault at operation %d, which the switch told as %v: %v at %s", k, err, got, again.Position())
		}
		if closeErr := again.Close(); closeErr != nil {
			t.Fatal(closeErr)
		}
		if !hit {
			return
		}
	}
}
