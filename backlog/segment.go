package backlog

import (
	"errors"
	"io/fs"
	"sort"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// segment is one file of the log. Fields behind the blank line are guarded by Log.mu; the appender may also read those
// of the active segment without it, since only it changes them.
type segment struct {
	path  string
	first uint64
	base  int64 // address of the file's first byte, see Log.ReadAt

	next     uint64   // offset behind the last whole frame
	size     int64    // bytes of header and whole frames; whatever the file has behind them is zeros or not committed
	index    []mark   // a frame boundary at least every indexEvery bytes
	file     vfs.File // nil while nobody needs it
	pins     int      // IO in progress: the file must stay open
	interest int      // readers whose cursor is here: the file should stay open
	looked   bool     // ReadAt has read here, so it will again: the file should stay open
	sealed   bool     // not the active segment
	dirty    bool     // holds bytes that no sync covered yet
	gone     bool     // trimmed, or the log is closed
}

// mark says that the frame which begins at offset lies at byte pos.
type mark struct {
	offset uint64
	pos    int64
}

// indexEvery is the distance in bytes between two marks. A boundary is at most this far behind a mark.
const indexEvery = 32 << 10

// bytes is what the segment holds of the log, its header not counted.
func (s *segment) bytes() int64 { return s.size - SegmentHeaderSize }

// end is the address behind the last whole frame.
func (s *segment) end() int64 { return s.base + s.size }

// noteMark adds a mark for the frame that begins at offset and pos, if the last one is far enough away.
func noteMark(index []mark, offset uint64, pos int64) []mark {
	if n := len(index); n == 0 || pos-index[n-1].pos >= indexEvery {
		return append(index, mark{offset, pos})
	}
	return index
}

// markLocked is the last mark at or before offset.
func (s *segment) markLocked(offset uint64) mark {
	i := sort.Search(len(s.index), func(i int) bool { return s.index[i].offset > offset })
	if i == 0 {
		return mark{s.first, SegmentHeaderSize}
	}
	return s.index[i-1]
}

// idleLocked takes the file away if nobody needs it open; the caller closes what it gets, without the lock.
func (s *segment) idleLocked() vfs.File {
	if s.file == nil || s.pins > 0 || !(s.gone || s.sealed && !s.dirty && s.interest == 0 && !s.looked) {
		return nil
	}
	f := s.file
	s.file = nil
	return f
}

// enter pins the segment for IO and returns its file, which stays open until leave. It returns ErrEvicted once the
// segment was trimmed.
func (l *Log) enter(s *segment) (vfs.File, error) {
	l.mu.Lock()
	return l.enterLocked(s)
}

// enterLocked is enter for who has mu, which it lets go of.
func (l *Log) enterLocked(s *segment) (vfs.File, error) {
	if s.gone {
		defer l.mu.Unlock()
		return nil, l.goneLocked(s.first)
	}
	s.pins++
	f := s.file
	l.mu.Unlock()
	if f != nil {
		return f, nil
	}
	f, err := l.o.FS.Open(s.path)
	l.mu.Lock()
	if err != nil {
		s.pins--
		if s.gone && errors.Is(err, fs.ErrNotExist) {
			err = l.goneLocked(s.first)
		}
		l.mu.Unlock()
		return nil, err
	}
	spare := f
	if s.file == nil {
		s.file, spare = f, nil
	}
	f = s.file
	l.mu.Unlock()
	return f, closeFile(spare)
}

// leave ends what enter began.
func (l *Log) leave(s *segment) {
	l.mu.Lock()
	s.pins--
	f := s.idleLocked()
	l.mu.Unlock()
	l.discard(f)
}

// discard closes a file whose content no longer depends on it: it was synced, or is only read, or is deleted.
func (l *Log) discard(f vfs.File) {
	if err := closeFile(f); err != nil {
		l.o.Logger.Warn("closing a segment failed", "error", err)
	}
}

func closeFile(f vfs.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}

// createSegment makes a segment that begins at first, with its header written and under its final name. On an error
// nothing of it is left but, perhaps, a temporary file that the next try and the next Open remove.
func (l *Log) createSegment(first uint64) (*segment, error) {
	o := &l.o
	temp, path := o.FS.PathJoin(o.Dir, tempName), o.FS.PathJoin(o.Dir, segmentName(first))
	if err := removeIfThere(o.FS, temp); err != nil {
		return nil, err
	}
	f, err := o.FS.OpenReadWrite(temp, category)
	if err != nil {
		return nil, err
	}
	h := SegmentHeader{Shard: o.Shard, Generation: o.Generation(first), First: first, Synced: l.durable.Load()}
	_, err = f.WriteAt(h.Append(nil), 0)
	if err == nil {
		err = o.FS.Rename(temp, path)
	}
	if err != nil {
		l.discard(f)
		if err := removeIfThere(o.FS, temp); err != nil {
			o.Logger.Warn("removing a temporary file failed", "file", temp, "error", err)
		}
		return nil, err
	}
	return &segment{
		path: path, first: first, next: first, size: SegmentHeaderSize, file: f, dirty: true,
		index: make([]mark, 0, o.SegmentBytes/indexEvery+2),
	}, nil
}

func removeIfThere(f vfs.FS, path string) error {
	if err := f.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
