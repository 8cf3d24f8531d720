package wire

import (
	"encoding/binary"
	"fmt"
	"slices"
)

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}

// Heartbeat is sent by the primary once a second, between two frames of the stream.
type Heartbeat struct {
	Position Position // the primary's, whatever the session was sent so far
	Clock    int64    // the primary's wall clock, microseconds since 1970
	Digest   Digest   // of the frames sent in this session so far
	Sent     uint64   // offset behind the last frame sent in this session
	Pending  uint64   // bytes of frames that the primary has and this session was not sent yet
}

// AppendHeartbeat appends h as a frame: generation:16 offset:8 clock:8 digest:8 sent:8 pending:8.
func AppendHeartbeat(dst []byte, h Heartbeat) []byte {
	var b [PositionSize + 32]byte
	p := AppendPosition(b[:0], h.Position)
	p = binary.LittleEndian.AppendUint64(p, uint64(h.Clock))
	p = binary.LittleEndian.AppendUint64(p, uint64(h.Digest))
	p = binary.LittleEndian.AppendUint64(p, h.Sent)
	p = binary.LittleEndian.AppendUint64(p, h.Pending)
	return AppendControl(dst, KindHeartbeat, p)
}

// ParseHeartbeat reads the payload of a heartbeat frame. Bytes behind the known ones are left for later versions.
func ParseHeartbeat(b []byte) (Heartbeat, error) {
	if len(b) < PositionSize+32 {
		return Heartbeat{}, malformed("a heartbeat of %d bytes", len(b))
	}
	p, err := ParsePosition(b[:PositionSize])
	b = b[PositionSize:]
	return Heartbeat{
		Position: p,
		Clock:    int64(binary.LittleEndian.Uint64(b)),
		Digest:   Digest(binary.LittleEndian.Uint64(b[8:])),
		Sent:     binary.LittleEndian.Uint64(b[16:]),
		Pending:  binary.LittleEndian.Uint64(b[24:]),
	}, err
}

// Ack tells the primary how far the replica is. Each is an offset in the session's generation: everything before it
// is in the inbox, visible to the replica's readers, or survives power loss there. Durable <= Applied <= Received.
type Ack struct {
	Received, Applied, Durable uint64
}

// AppendAck appends a as a frame: received:8 applied:8 durable:8.
func AppendAck(dst []byte, a Ack) []byte {
	var b [24]byte
	binary.LittleEndian.PutUint64(b[:], a.Received)
	binary.LittleEndian.PutUint64(b[8:], a.Applied)
	binary.LittleEndian.PutUint64(b[16:], a.Durable)
	return AppendControl(dst, KindAck, b[:])
}

// ParseAck reads the payload of an ack frame and checks that its offsets are in order.
func ParseAck(b []byte) (Ack, error) {
	if len(b) < 24 {
		return Ack{}, malformed("an ack of %d bytes", len(b))
	}
	a := Ack{
		Received: binary.LittleEndian.Uint64(b),
		Applied:  binary.LittleEndian.Uint64(b[8:]),
		Durable:  binary.LittleEndian.Uint64(b[16:]),
	}
	if a.Durable > a.Applied || a.Applied > a.Received {
		return a, malformed("an ack with received %d, applied %d, durable %d: each must be at most the one before", a.Received, a.Applied, a.Durable)
	}
	return a, nil
}

// AppendAsk appends a frame that asks for an ack at an offset: offset:8. Without one a replica acks now and then.
func AppendAsk(dst []byte, offset uint64) []byte {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], offset)
	return AppendControl(dst, KindAsk, b[:])
}

// ParseAsk reads the payload of an ask frame.
func ParseAsk(b []byte) (offset uint64, err error) {
	if len(b) < 8 {
		return 0, malformed("an ask of %d bytes", len(b))
	}
	return binary.LittleEndian.Uint64(b), nil
}

// File is one immutable file of a snapshot.
type File struct {
	Name string   // a path inside the snapshot, with slashes, without ".." or a leading slash
	Size uint64   // bytes
	Sum  [16]byte // 128-bit xxh3 of the content
}

// Manifest lists a snapshot's files. It follows a fullsync frame.
type Manifest struct {
	Snapshot ID
	Files    []File
}

// Bytes is the size of all files together.
func (m Manifest) Bytes() (n uint64) {
	for _, f := range m.Files {
		n += f.Size
	}
	return n
}

// AppendManifest appends m as a frame: snapshot:16 count:4 (size:8 sum:16 namelen:2 name)*.
func AppendManifest(dst []byte, m Manifest) []byte {
	b := append([]byte(nil), m.Snapshot[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(m.Files)))
	for _, f := range m.Files {
		b = binary.LittleEndian.AppendUint64(b, f.Size)
		b = append(b, f.Sum[:]...)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(f.Name)))
		b = append(b, f.Name...)
	}
	return AppendControl(dst, KindManifest, b)
}

// ParseManifest reads the payload of a manifest frame. Names that would leave the snapshot's directory are refused.
func ParseManifest(b []byte) (Manifest, error) {
	var m Manifest
	if len(b) < 20 {
		return m, malformed("a manifest of %d bytes", len(b))
	}
	copy(m.Snapshot[:], b)
	count := binary.LittleEndian.Uint32(b[16:])
	b = b[20:]
	if uint64(count)*26 > uint64(len(b)) {
		return m, malformed("a manifest of %d files in %d bytes", count, len(b))
	}
	m.Files = make([]File, 0, count)
	seen := make(map[string]struct{}, count)
	for range count {
		if len(b) < 26 {
			return m, malformed("a manifest that ends inside an entry")
		}
		f := File{Size: binary.LittleEndian.Uint64(b)}
		copy(f.Sum[:], b[8:])
		n := int(binary.LittleEndian.Uint16(b[24:]))
		if len(b) < 26+n {
			return m, malformed("a manifest that ends inside a name")
		}
		f.Name, b = string(b[26:26+n]), b[26+n:]
		if !validName(f.Name) {
			return m, malformed("a snapshot file named %q", f.Name)
		}
		if _, twice := seen[f.Name]; twice {
			return m, malformed("a snapshot with two files named %q", f.Name)
		}
		seen[f.Name] = struct{}{}
		m.Files = append(m.Files, f)
	}
	if len(b) != 0 {
		return m, malformed("%d bytes behind a manifest", len(b))
	}
	return m, nil
}

func validName(s string) bool {
	if s == "" || s[0] == '/' || s[len(s)-1] == '/' {
		return false
	}
	part := 0
	for i := 0; i <= len(s); i++ {
		if i < len(s) && s[i] != '/' {
			if s[i] < ' ' || s[i] == '\\' || s[i] == 0x7f {
				return false
			}
			continue
		}
		if p := s[part:i]; p == "" || p == "." || p == ".." {
			return false
		}
		part = i + 1
	}
	return true
}

// Want asks for one file of a manifest, from a byte on.
type Want struct {
	File uint32 // index in the manifest
	From uint64 // bytes that the replica has and has checked
}

// Fetch is the replica's answer to a manifest: what it still needs, in the order in which it wants it. An empty list
// means that it has everything.
type Fetch struct {
	Snapshot ID
	Wants    []Want
}

// AppendFetch appends f as a frame: snapshot:16 count:4 (file:4 from:8)*.
func AppendFetch(dst []byte, f Fetch) []byte {
	b := append([]byte(nil), f.Snapshot[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(f.Wants)))
	for _, w := range f.Wants {
		b = binary.LittleEndian.AppendUint32(b, w.File)
		b = binary.LittleEndian.AppendUint64(b, w.From)
	}
	return AppendControl(dst, KindFetch, b)
}

// ParseFetch reads the payload of a fetch frame. Whether the files exist is for the caller to check.
func ParseFetch(b []byte) (Fetch, error) {
	var f Fetch
	if len(b) < 20 {
		return f, malformed("a fetch of %d bytes", len(b))
	}
	copy(f.Snapshot[:], b)
	count := binary.LittleEndian.Uint32(b[16:])
	b = b[20:]
	if uint64(count)*12 != uint64(len(b)) {
		return f, malformed("a fetch of %d files in %d bytes", count, len(b))
	}
	f.Wants = make([]Want, 0, count)
	for ; len(b) > 0; b = b[12:] {
		f.Wants = append(f.Wants, Want{File: binary.LittleEndian.Uint32(b), From: binary.LittleEndian.Uint64(b[4:])})
	}
	return f, nil
}

// Chunk is a piece of a snapshot's file.
type Chunk struct {
	File uint32 // index in the manifest
	From uint64 // where in the file the bytes belong
	Data []byte // at most MaxChunk bytes; points into the frame
}

// AppendChunk appends c as a frame: file:4 from:8 bytes.
func AppendChunk(dst []byte, c Chunk) []byte {
	dst, _ = AppendChunkOf(dst, c.File, c.From, len(c.Data), func(data []byte) error { copy(data, c.Data); return nil })
	return dst
}

// AppendChunkOf is [AppendChunk] for size bytes that read puts where they belong, so that they are not copied. It returns
// read's error, and dst as it was.
func AppendChunkOf(dst []byte, file uint32, from uint64, size int, read func(data []byte) error) ([]byte, error) {
	start, body := len(dst), len(dst)+HeaderSize+12
	frame := slices.Grow(dst, HeaderSize+12+size+TrailerSize)[:body+size]
	putHeader(frame[start:], Header{Kind: KindChunk, Length: uint32(12 + size)})
	binary.LittleEndian.PutUint32(frame[start+HeaderSize:], file)
	binary.LittleEndian.PutUint64(frame[start+HeaderSize+4:], from)
	if err := read(frame[body:]); err != nil {
		return dst, err
	}
	return binary.LittleEndian.AppendUint32(frame, Checksum(0, frame[start:])), nil
}

// ParseChunk reads the payload of a chunk frame.
func ParseChunk(b []byte) (Chunk, error) {
	if len(b) < 12 || len(b) > 12+MaxChunk {
		return Chunk{}, malformed("a chunk of %d bytes", len(b))
	}
	return Chunk{File: binary.LittleEndian.Uint32(b), From: binary.LittleEndian.Uint64(b[4:]), Data: b[12:]}, nil
}

// AppendSnapshotEnd appends the frame that follows a snapshot's last chunk: snapshot:16.
func AppendSnapshotEnd(dst []byte, snapshot ID) []byte {
	return AppendControl(dst, KindSnapshotEnd, snapshot[:])
}

// ParseSnapshotEnd reads the payload of a snapshot-end frame.
func ParseSnapshotEnd(b []byte) (ID, error) {
	var id ID
	if len(b) < len(id) {
		return id, malformed("a snapshot-end of %d bytes", len(b))
	}
	copy(id[:], b)
	return id, nil
}
