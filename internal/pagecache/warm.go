package pagecache

import (
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// warmStep is how much the kernel is asked for at once; it reads no more than that of a request, whatever its length.
	warmStep = 128 << 10
	// warmPause is how long there is nothing asked for behind warmBurst bytes, which makes 250 MB/s at most: others want the disk, too.
	warmPause = 4 * time.Millisecond
	warmBurst = 1 << 20
)

// warming is what all calls of Warm share.
var warming struct{ calls, bytes atomic.Int64 }

// Warm has the kernel read the files below dir into its cache, those of subdirectories too, until stop is closed: for files that were written past it and
// are to be read. Calls that run at the same time take half of what is free together, and leave the rest unread. Errors are of no
// consequence: who reads the files will meet them.
func Warm(fs vfs.FS, dir string, stop <-chan struct{}) {
	defer func() {
		if warming.calls.Add(-1) == 0 {
			warming.bytes.Store(0)
		}
	}()
	warming.calls.Add(1)
	warm(fs, dir, free()/2, stop)
}

// warm returns false when it is to end.
func warm(fs vfs.FS, dir string, room int64, stop <-chan struct{}) bool {
	names, _ := fs.List(dir)
	for _, name := range names {
		path := fs.PathJoin(dir, name)
		info, err := fs.Stat(path)
		switch {
		case err != nil: // removed meanwhile
		case info.IsDir():
			if !warm(fs, path, room, stop) {
				return false
			}
		case !warmFile(fs, path, info.Size(), room, stop):
			return false
		}
	}
	return true
}

func warmFile(fs vfs.FS, path string, size, room int64, stop <-chan struct{}) bool {
	f, err := fs.Open(path)
	if err != nil {
		return true
	}
	defer f.Close()
	if f.Fd() == vfs.InvalidFd {
		return false // nothing that the kernel has
	}
	for at := int64(0); at < size; at += warmStep {
		if warming.bytes.Add(min(warmStep, size-at)) > room {
			return false
		}
		if prefetch(int(f.Fd()), at, warmStep) != nil {
			return true
		}
		if (at+warmStep)%warmBurst != 0 && at+warmStep < size {
			continue
		}
		timer := time.NewTimer(warmPause)
		select {
		case <-timer.C:
		case <-stop:
			timer.Stop()
			return false
		}
	}
	return true
}
