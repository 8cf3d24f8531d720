package backlog

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Fork makes a log in o.Dir, which must hold none, with what l holds before the boundary offset next, and which goes on
// there. It is durable on return; l is as it was, and after an error o.Dir is of no use. It returns what NewReader does
// for an offset that is not held, not published or no boundary. Nobody may append to l meanwhile.
//
// Finished segments are links where the file system has them, so that a fork costs little time and no room. Neither log
// writes to them again: what the fork appends goes to a segment of its own, and the segment that next lies in is copied
// up to there.
func (l *Log) Fork(o Options, next uint64) (*Log, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	// What is linked must be durable, and nothing may be deleted while its link is made.
	if err := l.Sync(); err != nil {
		return nil, err
	}
	l.trimming.Lock()
	defer l.trimming.Unlock()
	if err := l.fork(o, next); err != nil {
		return nil, fmt.Errorf("backlog: forking %s at offset %d: %w", l.o.Dir, next, err)
	}
	return Open(o)
}

// fork fills o.Dir. It needs trimming.
func (l *Log) fork(o Options, next uint64) error {
	cut, size, err := l.locate(next)
	if err != nil {
		return err
	}
	if err := makeDir(o.FS, o.Dir); err != nil {
		return err
	}
	l.mu.Lock()
	segments := append([]*segment(nil), l.mu.segments...)
	l.mu.Unlock()
	for _, s := range segments {
		if s.first >= next {
			break
		}
		to := o.FS.PathJoin(o.Dir, segmentName(s.first))
		if s == cut {
			err = l.copyUpTo(s, size, o.FS, to)
		} else {
			err = vfs.LinkOrCopy(o.FS, s.path, to)
		}
		if err != nil {
			return err
		}
	}
	h := SegmentHeader{Shard: o.Shard, Generation: o.Generation(next), First: next, Synced: next}
	if err := writeFile(o.FS, o.FS.PathJoin(o.Dir, segmentName(next)), func(f vfs.File) error {
		_, err := f.Write(h.Append(nil))
		return err
	}); err != nil {
		return err
	}
	dir, err := o.FS.OpenDir(o.Dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// copyUpTo copies a segment's first size bytes into a file of its own.
func (l *Log) copyUpTo(s *segment, size int64, fs vfs.FS, to string) error {
	from, err := l.enter(s)
	if err != nil {
		return err
	}
	defer l.leave(s)
	return writeFile(fs, to, func(f vfs.File) error {
		for at := int64(0); at < size; {
			// A piece of its own each time: a file may change what it is given.
			b := make([]byte, min(size-at, 1<<20))
			if err := readFull(from, s.path, b, at, s.first); err != nil {
				return err
			}
			if _, err := f.Write(b); err != nil {
				return err
			}
			at += int64(len(b))
		}
		return nil
	})
}

// writeFile makes a file, has f fill it, and syncs it.
func writeFile(fs vfs.FS, path string, f func(vfs.File) error) error {
	file, err := fs.Create(path, category)
	if err != nil {
		return err
	}
	if err = f(file); err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}
