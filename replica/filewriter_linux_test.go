package replica

import (
	"bytes"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"github.com/understudy-kv/understudy/internal/pagecache/pagecachetest"
	"github.com/understudy-kv/understudy/wire"
)

// stageSome stages what is wanted of a one-file manifest, in chunks of a size, until it has stored so many chunks, and returns how many it was short of.
func stageSome(t *testing.T, fs vfs.FS, dir string, m *wire.Manifest, content []byte, size, chunks int) (left int) {
	t.Helper()
	s, wants, err := openStaging(fs, dir, wire.Position{Generation: gen1, Offset: 5}, m, minBlock, func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	for _, w := range wants {
		for from := int(w.From); from < len(content); from += size {
			if chunks--; chunks < 0 {
				left++
				continue
			}
			if err := s.store(wire.Chunk{File: w.File, From: uint64(from), Data: content[from:min(from+size, len(content))]}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if left > 0 {
		return left
	}
	if again, err := s.verify(); err != nil || len(again) > 0 {
		t.Fatalf("it arrived damaged: %v, %v", again, err)
	}
	return 0
}

// TestStagingPassesTheCache: what arrives goes past the kernel's cache in blocks, whatever the chunks are, and where a session breaks and
// the next one goes on.
func TestStagingPassesTheCache(t *testing.T) {
	content := pseudo(9*minBlock + 777)
	manifest := (&fakePrimary{snapshot: wire.ID{1}, files: []file{{"a", content}}}).manifest()
	for _, size := range []int{1000, minBlock - 1, minBlock, 3*minBlock + 5, len(content)} {
		dir := pagecachetest.Dir(t)
		n := (len(content) + size - 1) / size
		left := stageSome(t, vfs.Default, dir, &manifest, content, size, n/2)
		path := filepath.Join(dir, stagingDir, stagingFiles, "a")
		if half := n / 2 * size; half > 0 {
			if got, err := readAll(vfs.Default, path); err != nil || string(got) != string(content[:half]) {
				t.Fatalf("chunks of %d: %d bytes are there when the session breaks, want %d: %v", size, len(got), half, err)
			}
		}
		if left != n-n/2 {
			t.Fatalf("chunks of %d: %d of %d are left", size, left, n)
		}
		if left := stageSome(t, vfs.Default, dir, &manifest, content, size, n); left != 0 {
			t.Fatalf("chunks of %d: %d more than there are", size, left)
		}
		// The second half was never read here; its whole blocks begin behind the one in which the first half ends.
		for at := (n/2*size + 2*minBlock - 1) / minBlock * minBlock; at+minBlock <= len(content); at += minBlock {
			if pagecachetest.Cached(t, path, int64(at)) {
				t.Errorf("chunks of %d: byte %d is in the cache", size, at)
			}
		}
		if got, err := readAll(vfs.Default, path); err != nil || !bytes.Equal(got, content) {
			t.Fatalf("chunks of %d: the file has %d bytes, want %d, and others: %v", size, len(got), len(content), err)
		}
	}
}

// TestStagingPassesTheCacheEachTime: so does every file that comes behind another one, whatever the end of that was.
func TestStagingPassesTheCacheEachTime(t *testing.T) {
	for _, end := range []int{0, 777} {
		content := pseudo(2*minBlock + end)
		manifest := (&fakePrimary{snapshot: wire.ID{1}, files: []file{{"a", content}, {"b", content}, {"c", content}}}).manifest()
		dir := pagecachetest.Dir(t)
		if left := stageSome(t, vfs.Default, dir, &manifest, content, 10_000, 1<<20); left != 0 {
			t.Fatal(left)
		}
		for _, name := range []string{"a", "b", "c"} {
			path := filepath.Join(dir, stagingDir, stagingFiles, name)
			for at := 0; at < 2*minBlock; at += minBlock {
				if pagecachetest.Cached(t, path, int64(at)) {
					t.Errorf("end of %d bytes: byte %d of %s is in the cache", end, at, name)
				}
			}
			if got, err := readAll(vfs.Default, path); err != nil || !bytes.Equal(got, content) {
				t.Errorf("end of %d bytes: %s has %d bytes, want %d, and others: %v", end, name, len(got), len(content), err)
			}
		}
	}
}

// oddFS is a file system of a device that takes nothing past the cache, and says so when it is written to.
type oddFS struct {
	vfs.FS
	refused atomic.Int32
}

type oddFile struct {
	vfs.File
	fs *oddFS
}

func (fs *oddFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.OpenReadWrite(name, c, o...)
	return oddFile{f, fs}, err
}

func (f oddFile) WriteAt(b []byte, at int64) (int, error) {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err == nil && flags&unix.O_DIRECT != 0 {
		f.fs.refused.Add(1)
		return 0, syscall.EINVAL
	}
	return f.File.WriteAt(b, at)
}

// TestStagingWithoutAWayPast: where the device does not take what goes past the cache, everything goes through it, after the first try.
func TestStagingWithoutAWayPast(t *testing.T) {
	content := pseudo(5*minBlock + 1)
	manifest := (&fakePrimary{snapshot: wire.ID{1}, files: []file{{"a", content}}}).manifest()
	dir, fs := pagecachetest.Dir(t), &oddFS{FS: vfs.Default}
	if left := stageSome(t, fs, dir, &manifest, content, 10_000, 1<<20); left != 0 {
		t.Fatal(left)
	}
	if got, err := readAll(vfs.Default, filepath.Join(dir, stagingDir, stagingFiles, "a")); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the file has %d bytes, want %d, and others: %v", len(got), len(content), err)
	}
	if n := fs.refused.Load(); n != 1 {
		t.Errorf("%d writes went past the cache, want 1", n)
	}
}
