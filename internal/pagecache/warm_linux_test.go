package pagecache

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestWarmLeavesRoom: no more is read than there is room for, by all who read at the same time together.
func TestWarmLeavesRoom(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 3*warmStep), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		before, room int64
		whole        bool
	}{
		{0, 6 * warmStep, true},
		{0, 6*warmStep - 1, false},
		{warmStep, 6 * warmStep, false},
		{warmStep, 7 * warmStep, true},
		{0, 0, false},
	} {
		warming.bytes.Store(c.before)
		if got := warm(vfs.Default, dir, c.room, nil); got != c.whole {
			t.Errorf("%d bytes were read before, and there is room for %d: everything was read: %v", c.before, c.room, got)
		}
	}
	if Warm(vfs.Default, dir, nil); warming.bytes.Load() != 0 {
		t.Errorf("%d bytes are counted when nobody reads", warming.bytes.Load())
	}
}

// TestFree: there is something, within what the machine has, and a limit counts.
func TestFree(t *testing.T) {
	if n := free(); n <= 0 {
		t.Errorf("%d bytes are free", n)
	}
	path := filepath.Join(t.TempDir(), "memory.max")
	for content, want := range map[string]int64{"": 7, "max\n": 7, "4096\n": 4096, "x": 7} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := limit(path, 7); got != want {
			t.Errorf("%q: a limit of %d, want %d", content, got, want)
		}
	}
	if got := limit(path+"x", 7); got != 7 {
		t.Errorf("without a file there is a limit of %d", got)
	}
}
