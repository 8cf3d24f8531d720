package wire_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"testing"

	"github.com/understudy-kv/understudy/wire"
)

// everyPrefixIsShort: a beginning of a frame is never an error and never a frame (pitfall 5).
func everyPrefixIsShort(t tb, raw []byte) {
	t.Helper()
	for n := range raw {
		if _, err := wire.ParseFrame(raw[:n:n]); !errors.Is(err, wire.ErrShort) {
			t.Fatalf("the first %d of %d bytes: %v, want ErrShort", n, len(raw), err)
		}
	}
}

// everyFlipIsRefused: one changed bit anywhere makes a hard error, never a frame and never "read on".
func everyFlipIsRefused(t tb, raw []byte) {
	t.Helper()
	b := append([]byte(nil), raw...)
	for i := range b {
		bit := byte(1) << (i % 8)
		b[i] ^= bit
		if _, err := wire.ParseFrame(b); err == nil || errors.Is(err, wire.ErrShort) {
			t.Fatalf("bit %d of byte %d flipped: %v, want a hard error", i%8, i, err)
		}
		b[i] ^= bit
	}
}

// seal makes a frame of any header and payload, with good checksums.
func seal(h wire.Header, payload []byte) []byte {
	b := append([]byte(nil), wire.Magic[:]...)
	b = append(b, byte(h.Kind), h.Flags)
	b = binary.LittleEndian.AppendUint32(b, h.Length)
	b = binary.LittleEndian.AppendUint64(b, h.First)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.Commit))
	b = binary.LittleEndian.AppendUint32(b, h.Count)
	b = binary.LittleEndian.AppendUint32(b, crc(b))
	b = append(b, payload...)
	return binary.LittleEndian.AppendUint32(b, crc(b))
}

func crc(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func TestParseHeaderRefuses(t *testing.T) {
	control := func(k wire.Kind) wire.Header { return wire.Header{Kind: k, Length: 4} }
	for _, c := range []struct {
		name string
		h    wire.Header
		want error
	}{
		{"kind 0", control(0), wire.ErrUnknown},
		{"a required kind of the future", control(0x7f), wire.ErrUnknown},
		{"an optional kind of the future", control(0x80), nil},
		{"another optional kind", control(0xff), nil},
		{"flags of a control frame", wire.Header{Kind: wire.KindAck, Flags: 0xff, Length: 24}, nil},
		{"flags of a mutations frame", wire.Header{Kind: wire.KindMutations, Flags: 1, Length: 1, Count: 1}, wire.ErrUnknown},
		{"no mutation", wire.Header{Kind: wire.KindMutations, Length: 1}, wire.ErrMalformed},
		{"more mutations than bytes", wire.Header{Kind: wire.KindMutations, Length: 1, Count: 2}, wire.ErrMalformed},
		{"the last offset", wire.Header{Kind: wire.KindMutations, Length: 1, Count: 1, First: 1<<64 - 2}, nil},
		{"offsets that wrap", wire.Header{Kind: wire.KindMutations, Length: 1, Count: 1, First: 1<<64 - 1}, wire.ErrMalformed},
		// Pitfall 4: a heartbeat that took an offset would shift every offset behind it.
		{"a heartbeat that takes an offset", wire.Header{Kind: wire.KindHeartbeat, Length: 56, Count: 1}, wire.ErrMalformed},
		{"a heartbeat that has an offset", wire.Header{Kind: wire.KindHeartbeat, Length: 56, First: 9}, wire.ErrMalformed},
		{"an optional kind that takes an offset", wire.Header{Kind: 0xff, Count: 1}, wire.ErrMalformed},
		{"the largest mutations frame", wire.Header{Kind: wire.KindMutations, Length: wire.MaxPayload, Count: 1}, nil},
		{"a larger one", wire.Header{Kind: wire.KindMutations, Length: wire.MaxPayload + 1, Count: 1}, wire.ErrTooLarge},
		{"the largest control frame", wire.Header{Kind: wire.KindManifest, Length: wire.MaxControl}, nil},
		{"a larger control frame", wire.Header{Kind: wire.KindManifest, Length: wire.MaxControl + 1}, wire.ErrTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, err := wire.ParseHeader(seal(c.h, nil))
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if err == nil {
				mustEqual(t, h, c.h)
			}
		})
	}
}

// TestParseHeaderForeign: other protocols are told apart from damage at the first byte, so a stray HTTP request is
// not kept waiting for 32 bytes.
func TestParseHeaderForeign(t *testing.T) {
	for _, s := range []string{"G", "GET / HTTP/1.1\r\n", "\x16\x03\x01", "*1\r\n$4\r\nPING\r\n", "\x55X", "\x00"} {
		if _, err := wire.ParseHeader([]byte(s)); !errors.Is(err, wire.ErrMagic) {
			t.Errorf("%q: %v, want ErrMagic", s, err)
		}
	}
}

func TestParseFrameDamage(t *testing.T) {
	good := wire.AppendAck(nil, wire.Ack{Received: 3, Applied: 2, Durable: 1})
	damage := func(at int) error {
		b := append([]byte(nil), good...)
		b[at] ^= 0x10
		_, err := wire.ParseFrame(b)
		return err
	}
	for at, want := range map[int]error{0: wire.ErrMagic, 2: wire.ErrHeaderCRC, 5: wire.ErrHeaderCRC, 31: wire.ErrHeaderCRC, 40: wire.ErrCRC, 58: wire.ErrCRC} {
		if err := damage(at); !errors.Is(err, want) {
			t.Errorf("byte %d changed: %v, want %v", at, err, want)
		}
	}
	if _, err := wire.ParseFramePayload(append(append([]byte(nil), good[:40]...), make([]byte, 20)...)); err != nil {
		t.Errorf("ParseFramePayload looked at the payload: %v", err)
	}
}

// TestStreamWithHeartbeats is pitfall 4 from the reader's side: the offsets of a stream are contiguous over its
// mutations frames whatever control frames stand between them, and a digest of it does not see them.
func TestStreamWithHeartbeats(t *testing.T) {
	var b wire.Builder
	var stream []byte
	next := uint64(10)
	var sent wire.Digest
	for i := range 20 {
		b.Reset()
		for range i%3 + 1 {
			b.Put(fmt.Append(nil, "key", i), []byte("v"))
			b.End()
		}
		raw, err := b.Finish(next, noon)
		mustEqual(t, err, nil)
		f, err := wire.ParseFrame(raw)
		mustEqual(t, err, nil)
		stream, next, sent = append(stream, raw...), f.Next(), sent.Add(f.CRC())
		stream = wire.AppendHeartbeat(stream, wire.Heartbeat{Position: wire.Position{Generation: genA, Offset: next}, Digest: sent, Sent: next})
		stream = wire.AppendControl(stream, 0xfe, []byte("of the future"))
	}
	at := uint64(10)
	var seen wire.Digest
	for len(stream) > 0 {
		f, err := wire.ParseFrame(stream)
		mustEqual(t, err, nil)
		stream = stream[len(f.Raw):]
		switch f.Kind {
		case wire.KindMutations:
			mustEqual(t, f.First, at)
			at, seen = f.Next(), seen.Add(f.CRC())
		case wire.KindHeartbeat:
			h, err := wire.ParseHeartbeat(f.Payload)
			mustEqual(t, err, nil)
			mustEqual(t, h.Sent, at)
			mustEqual(t, h.Digest, seen)
		default:
			mustEqual(t, f.Kind.Known(), false)
			mustEqual(t, f.Next(), 0)
		}
	}
	mustEqual(t, at, next)
}

func TestKindNames(t *testing.T) {
	mustEqual(t, wire.KindFullSync.String(), "fullsync")
	mustEqual(t, wire.Kind(99).String(), "kind-99")
	mustEqual(t, wire.OpDeleteRange.String(), "delete-range")
	mustEqual(t, wire.OpKind(99).String(), "op-99")
	mustEqual(t, idOne.String(), "10111213-1415-4617-9819-1a1b1c1d1e1f")
	mustEqual(t, wire.ID{}.IsZero(), true)
	mustEqual(t, idOne.IsZero(), false)
}
