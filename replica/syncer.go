package replica

import (
	"errors"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// syncer makes whole files durable beside the receiving of the next ones, so that neither the disk nor the connection waits
// for the other. One goroutine uses it.
type syncer struct {
	fs    vfs.FS
	files chan staged
	bad   chan struct{} // closed when one could not be synced
	ended chan error    // capacity 1: how it went
}

// staged is an open file.
type staged struct {
	vfs.File
	path string
}

// maxUnsynced is how many whole files wait for the syncer at most, beside the one that it is at.
const maxUnsynced = 4

func newSyncer(fs vfs.FS) *syncer {
	s := &syncer{fs: fs, files: make(chan staged, maxUnsynced), bad: make(chan struct{}), ended: make(chan error, 1)}
	// The staging starts it with the first whole file. It owns the files that it is given, and ends with end, which waits
	// for it.
	go s.run()
	return s
}

func (s *syncer) run() {
	var err error
	for f := range s.files {
		if err != nil {
			_ = f.Close() // it is synced by whoever finds it
			continue
		}
		if err = f.Sync(); err != nil {
			// What the disk has of it is not known any more, and the next one to read it would see all of it.
			err = errors.Join(err, f.Close(), s.fs.Remove(f.path))
		} else {
			err = f.Close()
		}
		if err != nil {
			close(s.bad)
		}
	}
	s.ended <- err
}

// add hands over a file, to be synced and closed, and waits while there are too many. It returns false, and has not taken it,
// once there is an error, which end tells.
func (s *syncer) add(f vfs.File, path string) bool {
	select {
	case s.files <- staged{f, path}:
		return true
	case <-s.bad:
		return false
	}
}

// end waits until every file is synced and closed, or tells why one is not. It is called once.
func (s *syncer) end() error {
	close(s.files)
	return <-s.ended
}
