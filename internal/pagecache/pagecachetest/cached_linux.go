// Package pagecachetest tells tests what the kernel's page cache has.
package pagecachetest

import (
	"os"
	"testing"
	"unsafe"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"github.com/understudy-kv/understudy/internal/pagecache"
)

// Dir is a directory on a file system whose cache can be passed by. Where the machine's temporary directory is on none, the test is skipped.
func Dir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	path := vfs.Default.PathJoin(dir, "probe")
	f, err := vfs.Default.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ok := pagecache.Bypass(f, true)
	if ok {
		_, err = f.WriteAt(pagecache.Buffer(pagecache.Align)[:pagecache.Align], 0)
		ok = err == nil && !Cached(t, path, 0)
	}
	if !ok {
		t.Skipf("%s is on a file system without a way past its cache: %v", dir, err)
	}
	if err := vfs.Default.Remove(path); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Cached reports whether the cache has the byte of the file. It changes nothing; a read that must not wait, for one, would have the kernel
// begin to read.
func Cached(t *testing.T, path string, at int64) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page := int64(os.Getpagesize())
	b, err := unix.Mmap(int(f.Fd()), at/page*page, 1, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatalf("byte %d of %s: %v", at, path, err)
	}
	var there [1]byte
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&b[0])), 1, uintptr(unsafe.Pointer(&there[0])))
	if err := unix.Munmap(b); err != nil || errno != 0 {
		t.Fatalf("byte %d of %s: %v, %v", at, path, errno, err)
	}
	return there[0]&1 != 0
}
