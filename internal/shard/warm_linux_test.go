package shard_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"github.com/understudy-kv/understudy/internal/eventually"
	"github.com/understudy-kv/understudy/internal/pagecache/pagecachetest"
	"github.com/understudy-kv/understudy/internal/shard"
)

// TestInstallWarms: what was installed is read into the kernel's cache, which a full sync has written it past.
func TestInstallWarms(t *testing.T) {
	dir := pagecachetest.Dir(t)
	source := open(t, options(vfs.NewMem()))
	mustWrite(t, source, "new", "v")
	staged := filledDir(t, vfs.Default, filepath.Join(dir, "staged"), source, 1)
	path := filepath.Join(staged, "table")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(make([]byte, 1<<20))
	if err := errors.Join(err, f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close()); err != nil {
		t.Fatal(err)
	}
	if pagecachetest.Cached(t, path, 1<<19) {
		t.Skip("the cache keeps what it is told to drop")
	}
	o := options(vfs.Default)
	o.Dir, o.Writable = filepath.Join(dir, "shard"), false
	s := open(t, o)
	if err := s.Install(staged, source.Position(), source.Lineage()); err != nil {
		t.Fatal(err)
	}
	var engine string
	if err := s.Use(func(m shard.StateMachine) error { engine = m.(*machine).dir; return nil }); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, 10*time.Second, "the installed table is in the cache", func() bool {
		return pagecachetest.Cached(t, filepath.Join(engine, "table"), 1<<20-1)
	})
}
