package pagecache

import (
	"runtime/debug"
	"time"
	"unsafe"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// Mapping is the beginning of a file as the kernel has it in memory, for who reads many small pieces of it here and there: that takes a
// copy each, while pread(2) has to look for the page each time, which takes longer than the copy. One goroutine uses it.
type Mapping struct {
	b      []byte
	page   int64     // its size, in bytes
	pages  []byte    // of each, whether it was in memory
	looked time.Time // then
	reads  int       // since somebody looked at the clock
}

const (
	// lookAgain is for how long what is known of the pages counts, and clockEvery how many reads pass before the clock is looked at.
	lookAgain  = time.Second
	clockEvery = 64
)

// Map maps the first size bytes of the file, which must be there. It returns nil where that cannot be done: the file is not the
// kernel's, or there is no address space. The file may be closed, and removed, before Close.
func Map(f vfs.File, size int64) *Mapping {
	fd := f.Fd()
	if fd == vfs.InvalidFd || size <= 0 || size != int64(int(size)) {
		return nil
	}
	b, err := unix.Mmap(int(fd), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil
	}
	page := int64(unix.Getpagesize())
	return &Mapping{b: b, page: page, pages: make([]byte, (size+page-1)/page)}
}

// Close gives the mapping back. Nobody reads afterwards.
func (m *Mapping) Close() error { return unix.Munmap(m.b) }

// Read fills p with what the file has from at on, if that was in memory a moment ago, and reports whether it did. It does not wait for
// the disk: who did that in a mapping would stop everybody else who wants the same processor of the runtime's, and the collector of garbage.
func (m *Mapping) Read(p []byte, at int64) bool {
	end := at + int64(len(p))
	if at < 0 || end > int64(len(m.b)) {
		return false
	}
	if m.reads--; m.reads < 0 && !m.look() {
		return false
	}
	for i := at / m.page; i*m.page < end; i++ {
		if m.pages[i] == 0 {
			return false
		}
	}
	return m.copy(p, at)
}

// look asks the kernel which pages are in memory, if that was a while ago. It reports false if the kernel does not tell.
func (m *Mapping) look() bool {
	m.reads = clockEvery
	now := time.Now()
	if now.Sub(m.looked) < lookAgain {
		return true
	}
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(unsafe.SliceData(m.b))), uintptr(len(m.b)), uintptr(unsafe.Pointer(unsafe.SliceData(m.pages))))
	if errno != 0 {
		m.reads = 0 // next time
		return false
	}
	m.looked = now
	for i := range m.pages {
		m.pages[i] &= 1 // the other bits mean nothing
	}
	return true
}

// copy reports false if the memory is not there after all: somebody has cut the file, or the disk does not give it back.
func (m *Mapping) copy(p []byte, at int64) (ok bool) {
	before := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(before)
		if r := recover(); r != nil {
			if _, fault := r.(interface{ Addr() uintptr }); !fault {
				panic(r)
			}
		}
	}()
	copy(p, m.b[at:])
	return true
}
