package wire

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Kind says what a frame carries. Kinds from [KindOptional] up may be skipped by a receiver that does not know them.
type Kind uint8

// The kinds. Payload layouts stand beside the types of the same names.
const (
	KindMutations     Kind = 1  // (op* end:1)*count; takes the offsets [first, first+count)
	KindHeartbeat     Kind = 2  // generation:16 offset:8 clock:8 digest:8 sent:8 pending:8
	KindAck           Kind = 3  // received:8 applied:8 durable:8
	KindHello         Kind = 4  // version:2 fields
	KindResume        Kind = 5  // version:2 fields
	KindFullSync      Kind = 6  // version:2 fields
	KindRefuse        Kind = 7  // version:2 fields
	KindManifest      Kind = 8  // snapshot:16 count:4 (size:8 sum:16 namelen:2 name)*
	KindFetch         Kind = 9  // snapshot:16 count:4 (file:4 from:8)*
	KindChunk         Kind = 10 // file:4 from:8 bytes
	KindSnapshotEnd   Kind = 11 // snapshot:16
	KindBye           Kind = 12 // version:2 fields
	KindRewind        Kind = 13 // version:2 fields
	KindWantKeys      Kind = 14 // last:1 (len:4 key)*
	KindValues        Kind = 15 // op*; puts and deletes only
	KindValuesEnd     Kind = 16 // generation:16 offset:8
	KindTakeover      Kind = 17 // version:2 fields
	KindTakeoverReply Kind = 18 // version:2 fields
	KindOptional      Kind = 0x80
	KindKeepalive     Kind = 0x81 // empty; the replica's sign of life while it syncs or loads, when it has nothing to ack
	KindAsk           Kind = 0x82 // offset:8; the primary wants an ack as soon as everything before the offset is applied
)

var kindNames = map[Kind]string{
	KindMutations: "mutations", KindHeartbeat: "heartbeat", KindAck: "ack", KindHello: "hello", KindResume: "resume",
	KindFullSync: "fullsync", KindRefuse: "refuse", KindManifest: "manifest", KindFetch: "fetch", KindChunk: "chunk",
	KindSnapshotEnd: "snapshot-end", KindBye: "bye", KindKeepalive: "keepalive", KindAsk: "ask",
	KindRewind: "rewind", KindWantKeys: "want-keys", KindValues: "values", KindValuesEnd: "values-end",
	KindTakeover: "takeover", KindTakeoverReply: "takeover-reply",
}

// String gives the kind's name in docs/protocol.md.
func (k Kind) String() string {
	if s, ok := kindNames[k]; ok {
		return s
	}
	return fmt.Sprintf("kind-%d", uint8(k))
}

// Known reports whether this version knows the kind.
func (k Kind) Known() bool { return knownKinds[k] }

// knownKinds has a true for each of kindNames. Each frame's header is parsed several times on its way.
var knownKinds = func() (known [256]bool) {
	for k := range kindNames {
		known[k] = true
	}
	return known
}()

// Sizes and limits, in bytes.
const (
	// HeaderSize is the size of a frame's header.
	HeaderSize = 32
	// TrailerSize is the size of the CRC32C behind the payload.
	TrailerSize = 4
	// Overhead is what a frame costs beside its payload.
	Overhead = HeaderSize + TrailerSize
	// MaxPayload is the largest payload of a mutations or values frame: a 512 MiB value with room for the rest of its command.
	MaxPayload = 1 << 30
	// MaxControl is the largest payload of any other frame.
	MaxControl = 64 << 20
	// MaxHandshake is the largest payload that is accepted from a peer that has not been accepted yet.
	MaxHandshake = 64 << 10
	// MaxChunk is the most file bytes that one chunk frame carries.
	MaxChunk = 1 << 20
)

// Magic is the first two bytes of every frame.
var Magic = [2]byte{0x55, 0xD1}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum is the CRC32C that frames, files and headers of this project use. Continue one with crc, begin with 0.
func Checksum(crc uint32, b []byte) uint32 { return crc32.Update(crc, castagnoli, b) }

// Header is the fixed beginning of a frame.
type Header struct {
	Kind   Kind
	Flags  uint8
	Length uint32 // payload bytes
	First  uint64 // offset of the first mutation; 0 in control frames
	Commit int64  // when the primary committed the frame, microseconds since 1970; 0 in control frames
	Count  uint32 // mutations in the frame; 0 in control frames
}

// Next is the offset behind the frame's last mutation: the frame covers [First, Next).
func (h Header) Next() uint64 { return h.First + uint64(h.Count) }

// Size is the size of the whole frame in bytes.
func (h Header) Size() int { return Overhead + int(h.Length) }

func putHeader(b []byte, h Header) {
	_ = b[HeaderSize-1]
	b[0], b[1], b[2], b[3] = Magic[0], Magic[1], byte(h.Kind), h.Flags
	binary.LittleEndian.PutUint32(b[4:], h.Length)
	binary.LittleEndian.PutUint64(b[8:], h.First)
	binary.LittleEndian.PutUint64(b[16:], uint64(h.Commit))
	binary.LittleEndian.PutUint32(b[24:], h.Count)
	binary.LittleEndian.PutUint32(b[28:], Checksum(0, b[:28]))
}

// ParseHeader reads a header from the beginning of b. It returns [ErrShort] while b is a beginning of one, ErrMagic as
// soon as it cannot be one, and otherwise ErrHeaderCRC, ErrUnknown (a kind that must not be skipped), ErrTooLarge or
// ErrMalformed.
func ParseHeader(b []byte) (Header, error) {
	for i := 0; i < len(Magic) && i < len(b); i++ {
		if b[i] != Magic[i] {
			return Header{}, fmt.Errorf("%w: it begins with %q", ErrMagic, b[:min(len(b), 16)])
		}
	}
	if len(b) < HeaderSize {
		return Header{}, ErrShort
	}
	if got, want := binary.LittleEndian.Uint32(b[28:]), Checksum(0, b[:28]); got != want {
		return Header{}, fmt.Errorf("%w: %08x, want %08x", ErrHeaderCRC, got, want)
	}
	h := Header{
		Kind:   Kind(b[2]),
		Flags:  b[3],
		Length: binary.LittleEndian.Uint32(b[4:]),
		First:  binary.LittleEndian.Uint64(b[8:]),
		Commit: int64(binary.LittleEndian.Uint64(b[16:])),
		Count:  binary.LittleEndian.Uint32(b[24:]),
	}
	if !h.Kind.Known() && h.Kind < KindOptional {
		return Header{}, fmt.Errorf("%w: frame kind %d", ErrUnknown, h.Kind)
	}
	limit := uint32(MaxControl)
	if h.Kind == KindMutations {
		limit = MaxPayload
		if h.Flags != 0 {
			return Header{}, fmt.Errorf("%w: flags %#x of a mutations frame", ErrUnknown, h.Flags)
		}
		if h.Count == 0 || h.Length < h.Count || h.Next() < h.First {
			return Header{}, fmt.Errorf("%w: %d mutations from offset %d in %d bytes", ErrMalformed, h.Count, h.First, h.Length)
		}
	} else if h.Count != 0 || h.First != 0 {
		return Header{}, fmt.Errorf("%w: a %s frame with offset %d and count %d", ErrMalformed, h.Kind, h.First, h.Count)
	} else if h.Kind == KindValues {
		limit = MaxPayload
	}
	if h.Length > limit {
		return Header{}, fmt.Errorf("%w: a %s frame of %d bytes, at most %d", ErrTooLarge, h.Kind, h.Length, limit)
	}
	return h, nil
}

// Frame is a parsed frame. Its slices point into the bytes that were parsed.
type Frame struct {
	Header
	Payload []byte
	Raw     []byte // the whole frame, checksum included
}

// CRC is the frame's checksum, its last four bytes.
func (f Frame) CRC() uint32 { return binary.LittleEndian.Uint32(f.Raw[len(f.Raw)-TrailerSize:]) }

// ParseFrame reads one whole frame from the beginning of b and checks both checksums. It copies nothing. The error is
// [ErrShort], ErrCRC or one of [ParseHeader]'s.
func ParseFrame(b []byte) (Frame, error) {
	h, err := ParseHeader(b)
	if err != nil {
		return Frame{}, err
	}
	n := h.Size()
	if len(b) < n {
		return Frame{}, ErrShort
	}
	f := Frame{Header: h, Payload: b[HeaderSize : n-TrailerSize : n-TrailerSize], Raw: b[:n:n]}
	if got, want := f.CRC(), Checksum(0, b[:n-TrailerSize]); got != want {
		return Frame{}, fmt.Errorf("%w: a %s frame at offset %d: %08x, want %08x", ErrCRC, h.Kind, h.First, got, want)
	}
	return f, nil
}

// AppendControl appends a frame that carries no mutations.
func AppendControl(dst []byte, kind Kind, payload []byte) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, HeaderSize)...)
	putHeader(dst[start:], Header{Kind: kind, Length: uint32(len(payload))})
	dst = append(dst, payload...)
	return binary.LittleEndian.AppendUint32(dst, Checksum(0, dst[start:]))
}

// Digest folds a stream of frames into 64 bits: both ends of a session start at zero and add each mutations frame's
// checksum in order, so a heartbeat can show that they saw the same stream.
type Digest uint64

// Add folds in one frame's CRC (FNV-1a's step, on 32 bits at a time).
func (d Digest) Add(crc uint32) Digest { return (d ^ Digest(crc)) * 1099511628211 }
