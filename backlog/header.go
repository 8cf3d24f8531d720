package backlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/understudy-kv/understudy/wire"
)

// SegmentHeaderSize is the size of the header that each segment begins with; frames follow, without padding.
const SegmentHeaderSize = 64

// SegmentVersion is the version of the segments' format. Another one is refused.
const SegmentVersion uint32 = 1

var errSegmentVersion = errors.New("segment format")

// segmentMagic is the first eight bytes of a segment.
var segmentMagic = [8]byte{'U', 'S', 'T', 'D', 'Y', 'L', 'O', 'G'}

// SegmentHeader is the fixed beginning of a segment file:
//
//	magic:8 version:4 shard:4 generation:16 first:8 synced:8 zero:12 crc:4
//
// Integers are little-endian; crc is the CRC32C of the 60 bytes before it.
type SegmentHeader struct {
	Shard      uint32
	Generation wire.Generation // of offset First, when the segment was begun
	First      uint64          // offset of the segment's first mutation; also the file's name
	Synced     uint64          // everything before this offset was durable when the segment was begun
}

// Append appends the header's 64 bytes.
func (h SegmentHeader) Append(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, segmentMagic[:]...)
	dst = binary.LittleEndian.AppendUint32(dst, SegmentVersion)
	dst = binary.LittleEndian.AppendUint32(dst, h.Shard)
	dst = append(dst, h.Generation[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, h.First)
	dst = binary.LittleEndian.AppendUint64(dst, h.Synced)
	dst = append(dst, make([]byte, 12)...)
	return binary.LittleEndian.AppendUint32(dst, wire.Checksum(0, dst[start:]))
}

// ParseSegmentHeader reads the header from the beginning of b. The error says what is wrong with it.
func ParseSegmentHeader(b []byte) (SegmentHeader, error) {
	if len(b) < SegmentHeaderSize {
		return SegmentHeader{}, fmt.Errorf("a segment header of %d bytes, want %d", len(b), SegmentHeaderSize)
	}
	b = b[:SegmentHeaderSize]
	if [8]byte(b) != segmentMagic {
		return SegmentHeader{}, fmt.Errorf("not a segment: it begins with %q", b[:8])
	}
	if got, want := binary.LittleEndian.Uint32(b[60:]), wire.Checksum(0, b[:60]); got != want {
		return SegmentHeader{}, fmt.Errorf("segment header checksum mismatch: %08x, want %08x", got, want)
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != SegmentVersion {
		return SegmentHeader{}, fmt.Errorf("%w %d, this program knows %d", errSegmentVersion, v, SegmentVersion)
	}
	return SegmentHeader{
		Shard:      binary.LittleEndian.Uint32(b[12:]),
		Generation: wire.Generation(b[16:32]),
		First:      binary.LittleEndian.Uint64(b[32:]),
		Synced:     binary.LittleEndian.Uint64(b[40:]),
	}, nil
}

const (
	segmentSuffix = ".seg"
	segmentDigits = 20
	tempName      = "segment.tmp"
)

// segmentName is the file name of the segment that begins at offset first: 20 digits, so that names sort as offsets do.
func segmentName(first uint64) string {
	return fmt.Sprintf("%0*d%s", segmentDigits, first, segmentSuffix)
}

func parseSegmentName(name string) (first uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != segmentDigits {
		return 0, false
	}
	first, err := strconv.ParseUint(digits, 10, 64)
	return first, err == nil
}
