package backlog

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Inspection is what [Inspect] found. Nothing was changed.
type Inspection struct {
	Segments []SegmentInfo // oldest first
	Next     uint64        // offset behind the last good frame
	Synced   uint64        // everything before this offset is known to be durable
	Tail     int64         // bytes behind the last good frame that Open would cut: a write in progress, or a torn one
	Corrupt  *CorruptError // why Open would refuse, or nil
}

// SegmentInfo is one file of a log.
type SegmentInfo struct {
	Path   string
	Header SegmentHeader
	Next   uint64 // offset behind the last good frame
	Good   int64  // bytes of the header and the good frames behind it
	Size   int64  // bytes of the file
}

// Inspect judges the log in a directory as [Open] would, without taking anything or changing anything, so that it may
// be used beside the process that writes there. powerLost is [Options.PowerLost]. A directory without segments is
// ErrNoLog. A live log may delete a segment meanwhile: then the error is of fs.ErrNotExist's kind, and another try helps.
func Inspect(fsys vfs.FS, dir string, shard uint32, powerLost bool) (Inspection, error) {
	var in Inspection
	synced, err := readWatermark(fsys, dir) // before the frames, so that what was synced later is not missed in them
	if err != nil {
		return in, fmt.Errorf("backlog: reading what was synced in %s: %w", dir, err)
	}
	names, err := fsys.List(dir)
	if err != nil {
		return in, fmt.Errorf("backlog: %w", err)
	}
	var segments []found
	for _, name := range names {
		if first, ok := parseSegmentName(name); ok {
			segments = append(segments, found{path: fsys.PathJoin(dir, name), name: first})
		}
	}
	if len(segments) == 0 {
		return in, fmt.Errorf("%w: %s", ErrNoLog, dir)
	}
	slices.SortFunc(segments, func(a, b found) int {
		if a.name < b.name {
			return -1
		}
		return 1
	})
	if err := scanAll(fsys, segments, shard); err != nil {
		return in, fmt.Errorf("backlog: reading %s: %w", dir, err)
	}
	v := decideRecovery(segments, synced, powerLost)
	in.Corrupt, in.Next = v.corrupt, v.next
	for i, s := range segments {
		h, err := readSegmentHeader(fsys, s.path)
		if err != nil && s.fault.kind != faultHeader {
			return in, err
		}
		in.Segments = append(in.Segments, SegmentInfo{Path: s.path, Header: h, Next: s.next, Good: s.good, Size: s.size})
		in.Synced = max(in.Synced, synced, s.synced)
		switch {
		case v.corrupt != nil:
		case i >= v.keep:
			in.Tail += s.size
		case i == v.keep-1 && v.cut:
			in.Tail += s.size - s.good
		}
	}
	if v.corrupt != nil {
		in.Next = v.corrupt.Offset
	}
	return in, nil
}

func readSegmentHeader(fsys vfs.FS, path string) (SegmentHeader, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return SegmentHeader{}, err
	}
	b := make([]byte, SegmentHeaderSize)
	n, err := f.ReadAt(b, 0)
	h, bad := ParseSegmentHeader(b[:n])
	if bad == nil {
		err = nil
	}
	return h, errors.Join(err, bad, f.Close())
}

func readWatermark(fsys vfs.FS, dir string) (uint64, error) {
	f, err := fsys.Open(fsys.PathJoin(dir, watermarkName))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	offset, _, err := readSlots(f)
	return offset, errors.Join(err, f.Close())
}
