package backlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/wire"
)

// scanChunk is how much a scan reads at once. A frame may be larger; its checksum is computed piece by piece.
const scanChunk = 1 << 20

// scanAll scans every segment, as many at a time as there are processors. The error is one of reading; what is wrong
// with the bytes is in the faults.
func scanAll(fs vfs.FS, segments []found, shard uint32) error {
	var (
		wg     sync.WaitGroup
		turn   atomic.Int64
		errs   = make([]error, len(segments))
		worker = func() {
			var buf []byte
			for i := int(turn.Add(1)) - 1; i < len(segments); i = int(turn.Add(1)) - 1 {
				buf, errs[i] = scanFile(fs, &segments[i], shard, buf)
			}
		}
	)
	for range min(runtime.GOMAXPROCS(0), len(segments)) {
		// Started by Open; owns the segments whose turn it draws; ends when none is left; Open waits below.
		wg.Go(worker)
	}
	wg.Wait()
	return errors.Join(errs...)
}

// scanFile scans one segment, through a buffer that it makes larger if need be and hands back.
func scanFile(fs vfs.FS, s *found, shard uint32, buf []byte) (_ []byte, err error) {
	f, err := fs.Open(s.path)
	if err != nil {
		return buf, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return buf, err
	}
	s.size = info.Size()
	if want := int(min(s.size, scanChunk)); len(buf) < want {
		buf = make([]byte, want)
	}
	in := &scanner{file: f, end: s.size, buf: buf}
	return buf, s.scan(in, shard)
}

// scan reads the segment from its beginning to its first fault, or its end.
func (s *found) scan(in *scanner, shard uint32) error {
	s.next = s.name
	b, err := in.at(0, SegmentHeaderSize)
	if err != nil {
		return err
	}
	h, bad := ParseSegmentHeader(b)
	switch {
	case errors.Is(bad, errSegmentVersion):
		s.fault = fault{faultForeign, bad.Error()}
	case bad != nil:
		s.fault = fault{faultHeader, bad.Error()}
	case h.First != s.name:
		s.fault = fault{faultHeader, fmt.Sprintf("its header says offset %d, its name %d", h.First, s.name)}
	case h.Shard != shard:
		s.fault = fault{faultForeign, fmt.Sprintf("it belongs to shard %d, this is shard %d", h.Shard, shard)}
	}
	if s.fault.kind != faultNone {
		return nil
	}
	s.synced, s.good = h.Synced, SegmentHeaderSize
	for s.good < s.size {
		size, next, reason, err := s.frame(in)
		if err != nil {
			return err
		}
		if reason != "" {
			s.fault, err = s.judge(in, size, reason)
			return err
		}
		s.index = noteMark(s.index, s.next, s.good)
		s.good += size
		s.next = next
	}
	return nil
}

// frame verifies the frame behind the good ones. It returns the reason if it is not good, with its size if its header
// is.
func (s *found) frame(in *scanner) (size int64, next uint64, reason string, err error) {
	b, err := in.at(s.good, wire.HeaderSize)
	if err != nil {
		return 0, 0, "", err
	}
	h, bad := wire.ParseHeader(b)
	switch {
	case errors.Is(bad, wire.ErrShort):
		return 0, 0, fmt.Sprintf("a frame's header ends after %d of %d bytes", len(b), wire.HeaderSize), nil
	case bad != nil:
		return 0, 0, bad.Error(), nil
	case h.Kind != wire.KindMutations || h.First != s.next:
		return int64(h.Size()), 0, fmt.Sprintf("a %s frame from offset %d, want mutations from %d", h.Kind, h.First, s.next), nil
	}
	size = int64(h.Size())
	if left := s.size - s.good; size > left {
		return size, 0, fmt.Sprintf("a frame of %d bytes ends after %d", size, left), nil
	}
	var crc uint32
	end := s.good + size - wire.TrailerSize
	for pos := s.good; pos < end; pos += int64(len(b)) {
		if b, err = in.at(pos, int(min(end-pos, scanChunk))); err != nil {
			return 0, 0, "", err
		}
		crc = wire.Checksum(crc, b)
	}
	if b, err = in.at(end, wire.TrailerSize); err != nil {
		return 0, 0, "", err
	}
	if got := trailer(b); got != crc {
		return size, 0, fmt.Sprintf("%v: %08x, want %08x", wire.ErrCRC, got, crc), nil
	}
	return size, h.Next(), "", nil
}

// judge tells what kind of fault begins behind the good frames. size is that of the bad frame, if its header is good:
// then what lies inside it cannot be another frame of the log.
func (s *found) judge(in *scanner, size int64, reason string) (fault, error) {
	zeros := true
	for pos := s.good; pos < s.size && zeros; {
		b, err := in.at(pos, int(min(s.size-pos, scanChunk)))
		if err != nil {
			return fault{}, err
		}
		zeros = len(bytes.TrimLeft(b, "\x00")) == 0
		pos += int64(len(b))
	}
	if zeros {
		return fault{faultZeros, fmt.Sprintf("%d zero bytes", s.size-s.good)}, nil
	}
	later, err := in.findFrame(s.good+max(size, 1), s.next)
	if err != nil || later < 0 {
		return fault{faultTail, reason}, err
	}
	return fault{faultFrame, fmt.Sprintf("%s, and a good frame header follows at byte %d", reason, later)}, nil
}

// scanner reads a file through one buffer.
type scanner struct {
	file vfs.File
	end  int64
	buf  []byte
	from int64
	n    int
}

// at returns n bytes from pos, fewer only at the end of the file. n must be at most scanChunk. The bytes are valid
// until the next call.
func (in *scanner) at(pos int64, n int) ([]byte, error) {
	n = int(max(min(int64(n), in.end-pos), 0))
	if pos < in.from || pos+int64(n) > in.from+int64(in.n) {
		want := int(min(in.end-pos, int64(len(in.buf))))
		got, err := in.file.ReadAt(in.buf[:want], pos)
		if got < want {
			in.n = 0
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		in.from, in.n = pos, got
	}
	return in.buf[pos-in.from : pos-in.from+int64(n)], nil
}

// findFrame looks for a good frame header at or behind pos, for mutations at or behind offset next. It returns -1 if
// there is none.
func (in *scanner) findFrame(pos int64, next uint64) (int64, error) {
	for in.end-pos >= wire.HeaderSize {
		b, err := in.at(pos, int(min(in.end-pos, scanChunk)))
		if err != nil {
			return -1, err
		}
		i := bytes.Index(b, wire.Magic[:])
		if i < 0 {
			pos += int64(len(b)) - 1
			continue
		}
		pos += int64(i)
		if b, err = in.at(pos, wire.HeaderSize); err != nil {
			return -1, err
		}
		if h, err := wire.ParseHeader(b); err == nil && h.Kind == wire.KindMutations && h.First >= next {
			return pos, nil
		}
		pos++
	}
	return -1, nil
}
