package backlog

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/understudy-kv/understudy/wire"
)

// goldenHeader is a segment header, field by field. docs/protocol.md and old data directories depend on it.
var goldenHeader = strings.Join([]string{
	"55535444594c4f47",                 // magic "USTDYLOG"
	"01000000",                         // version 1
	"07000000",                         // shard 7
	"000102030405060708090a0b0c0d0e0f", // generation
	"1500cd5b07000000",                 // first 0x75bcd0015
	"0f00cd5b07000000",                 // synced 0x75bcd000f
	"000000000000000000000000",         // zero
	"8bb15c3c",                         // crc
}, "")

func TestGoldenSegmentHeader(t *testing.T) {
	h := SegmentHeader{Shard: 7, First: 0x75bcd0015, Synced: 0x75bcd000f}
	for i := range h.Generation {
		h.Generation[i] = byte(i)
	}
	b := h.Append(nil)
	if got := hex.EncodeToString(b); got != goldenHeader {
		t.Fatalf("got  %s\nwant %s", got, goldenHeader)
	}
	if got, err := ParseSegmentHeader(b); err != nil || got != h {
		t.Fatalf("parsed %+v, %v", got, err)
	}
	for i := range b {
		b[i] ^= 1
		if _, err := ParseSegmentHeader(b); err == nil {
			t.Errorf("a flipped bit in byte %d went unnoticed", i)
		}
		b[i] ^= 1
	}
	if _, err := ParseSegmentHeader(b[:63]); err == nil {
		t.Error("63 bytes were taken for a header")
	}
	b[8] = 2
	sum := wire.Checksum(0, b[:60])
	b[60], b[61], b[62], b[63] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
	if _, err := ParseSegmentHeader(b); !errors.Is(err, errSegmentVersion) {
		t.Errorf("a header of version 2: %v", err)
	}
}

func TestSegmentNames(t *testing.T) {
	for _, first := range []uint64{0, 1, 1<<64 - 1} {
		name := segmentName(first)
		if got, ok := parseSegmentName(name); !ok || got != first || len(name) != 24 {
			t.Errorf("%d is named %q, which is read as %d, %t", first, name, got, ok)
		}
	}
	for _, name := range []string{"synced", "segment.tmp", "1.seg", "0000000000000000000x.seg", "99999999999999999999.seg", "00000000000000000001.sst"} {
		if _, ok := parseSegmentName(name); ok {
			t.Errorf("%q was taken for a segment", name)
		}
	}
}
