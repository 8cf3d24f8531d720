package e2e

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"net"
	"testing"
	"time"
)

// These are frames as docs/protocol.md describes them, written down a second time: e2e sees the port from outside.

func crc32c(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func rawFrame(kind byte, payload []byte) []byte {
	b := []byte{0x55, 0xd1, kind, 0}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = append(b, make([]byte, 20)...)
	b = binary.LittleEndian.AppendUint32(b, crc32c(b))
	b = append(b, payload...)
	return binary.LittleEndian.AppendUint32(b, crc32c(b))
}

type rawField struct {
	tag   uint16
	value []byte
}

func rawHello(version uint16, fields ...rawField) []byte {
	b := binary.LittleEndian.AppendUint16(nil, version)
	for _, f := range fields {
		b = binary.LittleEndian.AppendUint16(b, f.tag)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(f.value)))
		b = append(b, f.value...)
	}
	return rawFrame(4, b)
}

func id16(n byte) []byte {
	b := make([]byte, 16)
	b[0] = n
	return b
}

// helloFields are those of an empty replica of shard 0.
func helloFields(id byte) []rawField {
	return []rawField{{2, id16(id)}, {3, id16(id + 100)}, {13, id16(id + 50)}, {6, make([]byte, 4)}, {7, make([]byte, 4)}}
}

// answer dials a replication port, sends bytes and reads one frame. It returns the frame's kind and payload.
func answer(t *testing.T, addr string, send []byte) (kind byte, payload []byte) {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	must(t, err)
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(12*time.Second)))
	_, err = c.Write(send)
	must(t, err)
	header := make([]byte, 32)
	if _, err := io.ReadFull(c, header); err != nil {
		t.Fatalf("reading the answer: %v", err)
	}
	wantEqual(t, "the answer's magic", [2]byte(header), [2]byte{0x55, 0xd1})
	payload = make([]byte, binary.LittleEndian.Uint32(header[4:])+4)
	_, err = io.ReadFull(c, payload)
	must(t, err)
	return header[2], payload[:len(payload)-4]
}

// closedWithin dials a port, sends bytes and waits for the other side to close, at most so long.
func closedWithin(t *testing.T, addr string, send []byte, within time.Duration) error {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if _, err := c.Write(send); err != nil {
		return nil // Closed before it had read everything.
	}
	_, err = io.Copy(io.Discard, c)
	var timeout net.Error
	if ne, ok := err.(net.Error); ok {
		timeout = ne
	}
	return errorf(timeout == nil || !timeout.Timeout(), "still open after %s", within)
}
