package sim

import (
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// disk is a machine's disk as one process sees it. After a crash the next process gets a disk of its own, which holds what
// the crash left, and whatever the dead one still does happens on the old one.
type disk struct {
	vfs.FS // the crashable memory file system
	mem    *vfs.MemFS
	still  sync.RWMutex // held for writing while the disk is looked at as a whole
	full   atomic.Bool
	ops    atomic.Int64 // operations that change something, so far
	crash  atomic.Int64 // the operation in which onCrash is called; 0 for none
	// onCrash is called once, on the goroutine of that operation, of which a write has done its first half.
	onCrash func()

	entries struct {
		sync.Mutex
		last  int
		order map[string]int // when a directory entry was made, the later the higher
	}
}

func newDisk(mem *vfs.MemFS) *disk {
	d := &disk{FS: mem, mem: mem}
	d.entries.order = map[string]int{}
	return d
}

// enter notes that a directory entry is made.
func (d *disk) enter(path string) {
	d.entries.Lock()
	defer d.entries.Unlock()
	d.entries.last++
	d.entries.order[path] = d.entries.last
}

func (d *disk) entered(path string) int {
	d.entries.Lock()
	defer d.entries.Unlock()
	return d.entries.order[path]
}

// do carries an operation out. One that takes room fails on a full disk.
func (d *disk) do(room bool, op func() error) error {
	if d.ops.Add(1) == d.crash.Load() {
		d.onCrash()
	}
	if room && d.full.Load() {
		return syscall.ENOSPC
	}
	d.still.RLock()
	defer d.still.RUnlock()
	return op()
}

// spared reports whether a full disk still has room for a file. Pebble's manifest is: when it cannot be written the engine
// raises its fence and parks the goroutine for the rest of the process, which no bubble outlives.
func spared(name string) bool {
	base := name[strings.LastIndexByte(name, '/')+1:]
	return strings.HasPrefix(base, "MANIFEST-") || strings.HasPrefix(base, "marker.")
}

func (d *disk) file(name string, room bool, open func() (vfs.File, error)) (f vfs.File, err error) {
	err = d.do(room, func() error { f, err = open(); return err })
	if err != nil {
		return nil, err
	}
	return &diskFile{f, d, spared(name)}, nil
}

func (d *disk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return d.file(name, !spared(name), func() (vfs.File, error) {
		d.enter(name)
		return d.FS.Create(name, c)
	})
}

func (d *disk) Link(from, to string) error {
	return d.do(true, func() error {
		d.enter(to)
		return d.FS.Link(from, to)
	})
}

func (d *disk) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return d.file(name, false, func() (vfs.File, error) { return d.FS.OpenReadWrite(name, c, o...) })
}

func (d *disk) OpenDir(name string) (vfs.File, error) {
	return d.file(name, false, func() (vfs.File, error) { return d.FS.OpenDir(name) })
}

func (d *disk) Remove(name string) error {
	return d.do(false, func() error { return d.FS.Remove(name) })
}

func (d *disk) RemoveAll(name string) error {
	return d.do(false, func() error { return d.FS.RemoveAll(name) })
}

func (d *disk) Rename(from, to string) error {
	return d.do(false, func() error {
		d.enter(to)
		return d.FS.Rename(from, to)
	})
}

func (d *disk) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return d.file(to, !spared(to), func() (vfs.File, error) {
		d.enter(to)
		return d.FS.ReuseForWrite(from, to, c)
	})
}

func (d *disk) MkdirAll(dir string, perm os.FileMode) error {
	return d.do(true, func() error {
		d.enter(dir)
		return d.FS.MkdirAll(dir, perm)
	})
}

// Lock always succeeds: a dead process's goroutines live on for a while, but not its lock.
func (d *disk) Lock(name string) (io.Closer, error) {
	return d.Create(name, vfs.WriteCategoryUnspecified)
}

func (d *disk) Unwrap() vfs.FS { return d.FS }

// diskFile is a file of a disk.
type diskFile struct {
	vfs.File
	d      *disk
	spared bool
}

func (f *diskFile) Write(b []byte) (n int, err error) {
	err = f.halves(b, func(b []byte) error {
		k, err := f.File.Write(b)
		n += k
		return err
	})
	return n, err
}

// WriteAt over what is there already takes no room.
func (f *diskFile) WriteAt(b []byte, at int64) (n int, err error) {
	if info, err := f.Stat(); err == nil && at+int64(len(b)) <= info.Size() {
		err = f.d.do(false, func() error { n, err = f.File.WriteAt(b, at); return err })
		return n, err
	}
	err = f.halves(b, func(b []byte) error {
		k, err := f.File.WriteAt(b, at+int64(n))
		n += k
		return err
	})
	return n, err
}

// halves writes b, in two halves if the crash comes between them.
func (f *diskFile) halves(b []byte, write func([]byte) error) error {
	d := f.d
	if d.full.Load() && !f.spared {
		d.ops.Add(1)
		return syscall.ENOSPC
	}
	if c := d.crash.Load(); c != 0 && d.ops.Load() == c-1 && len(b) > 1 {
		d.still.RLock()
		err := write(b[:len(b)/2])
		d.still.RUnlock()
		if err != nil {
			return err
		}
		b = b[len(b)/2:]
	}
	return d.do(!f.spared, func() error { return write(b) })
}

func (f *diskFile) Sync() error     { return f.d.do(false, f.File.Sync) }
func (f *diskFile) SyncData() error { return f.d.do(false, f.File.SyncData) }

func (f *diskFile) SyncTo(n int64) (full bool, err error) {
	err = f.d.do(false, func() error { full, err = f.File.SyncTo(n); return err })
	return full, err
}

func (f *diskFile) Preallocate(at, n int64) error {
	return f.d.do(!f.spared, func() error { return f.File.Preallocate(at, n) })
}
