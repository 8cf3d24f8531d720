// Package pagecache is about what the kernel keeps of files in memory.
//
// A file that is written once, from front to back, by somebody who waits for the disk in any case, gains nothing from a
// copy there: the kernel looks for a free page for each 4 KiB of it, copies, and writes the page out later. Where the
// memory has not been used since the machine began, a virtual machine asks its host for each such page, which takes several times as
// long as the copy (docs/performance.md, S6).
package pagecache

import (
	"unsafe"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Align is what the address of a buffer, its length, and its place in the file must be multiples of, to be written past the cache.
// Devices with larger blocks than that answer EINVAL.
const Align = 4096

// Buffer makes an empty slice that has room for n bytes, a multiple of Align, at an address that is one.
func Buffer(n int) []byte {
	b := make([]byte, n+Align)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) % Align // the collector moves nothing
	return b[skip : skip : int(skip)+n]
}

// Has reports whether there is a cache for what is in a directory: its files are the kernel's.
func Has(fs vfs.FS, dir string) bool {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return false
	}
	defer d.Close()
	return d.Fd() != vfs.InvalidFd
}

// Bypass has what is written to the file from now on go past the cache, or no more. It reports false where that cannot be done: the file
// is not the kernel's, or lies where the cache is all there is. A write that is not aligned fails then, with EINVAL.
// What the cache has of the file already stays true.
func Bypass(f vfs.File, on bool) bool {
	fd := f.Fd()
	return fd != vfs.InvalidFd && bypass(int(fd), on)
}
