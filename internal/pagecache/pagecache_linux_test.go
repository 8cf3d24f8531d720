package pagecache_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/eventually"
	"github.com/understudy-kv/understudy/internal/pagecache"
	"github.com/understudy-kv/understudy/internal/pagecache/pagecachetest"
)

const align = pagecache.Align

func TestBuffer(t *testing.T) {
	for range 100 {
		for _, n := range []int{0, align, 7 * align, 1 << 20} {
			b := pagecache.Buffer(n)
			if len(b) != 0 || cap(b) != n {
				t.Fatalf("Buffer(%d) has %d bytes, and room for %d", n, len(b), cap(b))
			}
			if at := uintptr(unsafe.Pointer(unsafe.SliceData(b))); n > 0 && at%align != 0 {
				t.Fatalf("Buffer(%d) begins at %#x", n, at)
			}
		}
	}
}

// uncached makes a file of n whole blocks, written past the cache, and returns its content.
func uncached(t *testing.T, path string, n int) []byte {
	t.Helper()
	f, err := vfs.Default.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := pagecache.Buffer(n * align)
	for i := range n * align {
		b = append(b, byte(i/align+i))
	}
	if !pagecache.Bypass(f, true) {
		t.Fatal("the cache cannot be passed by")
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestBypass: what is written past the cache is not in it, and is there all the same; what is written otherwise is in it.
func TestBypass(t *testing.T) {
	path := filepath.Join(pagecachetest.Dir(t), "f")
	want := uncached(t, path, 3)
	for i := range int64(3) {
		if pagecachetest.Cached(t, path, i*align) {
			t.Errorf("block %d is in the cache", i)
		}
	}
	f, err := vfs.Default.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, on := range []bool{true, true, false, false} {
		if !pagecache.Bypass(f, on) {
			t.Errorf("Bypass(%v) fails", on)
		}
	}
	want = append(want, "the end"...)
	if _, err := f.WriteAt([]byte("the end"), 3*align); err != nil {
		t.Errorf("a write that is not aligned, through the cache: %v", err)
	}
	if !pagecachetest.Cached(t, path, 3*align) {
		t.Error("what was written through the cache is not in it")
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file has %d bytes, want %d: %v", len(got), len(want), err)
	}
}

// TestBypassOfNoFile: a file that the kernel does not have has no cache.
func TestBypassOfNoFile(t *testing.T) {
	fs := vfs.NewMem()
	f, err := fs.Create("f", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if pagecache.Bypass(f, true) || pagecache.Bypass(f, false) {
		t.Error("a file in memory goes past the cache")
	}
	if pagecache.Has(fs, "") || pagecache.Has(vfs.Default, filepath.Join(t.TempDir(), "nothing")) || !pagecache.Has(vfs.Default, t.TempDir()) {
		t.Error("what the kernel has in its cache is not what the kernel has")
	}
	pagecache.Warm(fs, "", nil)
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// TestWarm: files are read into the cache, those of subdirectories too.
func TestWarm(t *testing.T) {
	dir := pagecachetest.Dir(t)
	if err := os.Mkdir(filepath.Join(dir, "c"), 0o755); err != nil {
		t.Fatal(err)
	}
	paths := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "c", "d")}
	for i, p := range paths {
		uncached(t, p, 1+300*i)
	}
	pagecache.Warm(vfs.Default, filepath.Join(dir, "nothing"), nil)
	pagecache.Warm(vfs.Default, dir, nil)
	for i, p := range paths {
		for _, at := range []int64{0, 150 * int64(i), 300 * int64(i)} {
			eventually.True(t, 10*time.Second, fmt.Sprintf("block %d of %s is in the cache", at, p), func() bool {
				return pagecachetest.Cached(t, p, at*align)
			})
		}
	}
}

// TestWarmStops: it ends when it is told to, behind one piece of a large file at the latest.
func TestWarmStops(t *testing.T) {
	dir := pagecachetest.Dir(t)
	path := filepath.Join(dir, "f")
	uncached(t, path, 4<<20/align)
	stop := make(chan struct{})
	close(stop)
	pagecache.Warm(vfs.Default, dir, stop)
	for at := int64(2 << 20); at < 4<<20; at += align {
		if pagecachetest.Cached(t, path, at) {
			t.Fatalf("byte %d is in the cache", at)
		}
	}
}
