package wire

import (
	"encoding/binary"
	"fmt"
)

// Limits of what a replica may ask for after a rewind frame. Past them, it needs a full sync.
const (
	// MaxWantBytes is the largest size of all want-keys payloads of a session together.
	MaxWantBytes = 64 << 20
	// MaxWantKeys is the largest number of keys in them.
	MaxWantKeys = 1 << 20
)

// WantKeys lists raw keys that a replica asks for after a rewind frame: those that its surplus touched. A list may
// take several frames; the last one says so.
type WantKeys struct {
	Last bool
	Keys [][]byte // point into the frame
}

// AppendWantKeys appends w as a frame: last:1 (len:4 key)*.
func AppendWantKeys(dst []byte, w WantKeys) []byte {
	b := []byte{0}
	if w.Last {
		b[0] = 1
	}
	for _, k := range w.Keys {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(k)))
		b = append(b, k...)
	}
	return AppendControl(dst, KindWantKeys, b)
}

// ParseWantKeys reads the payload of a want-keys frame.
func ParseWantKeys(b []byte) (WantKeys, error) {
	if len(b) == 0 || b[0] > 1 {
		return WantKeys{}, malformed("a want-keys of %d bytes that does not begin with 0 or 1", len(b))
	}
	w := WantKeys{Last: b[0] == 1}
	for b = b[1:]; len(b) > 0; {
		if len(b) < 4 {
			return w, malformed("a want-keys that ends inside a length")
		}
		n := uint64(binary.LittleEndian.Uint32(b))
		if n > uint64(len(b)-4) {
			return w, malformed("a want-keys that ends inside a key of %d bytes", n)
		}
		w.Keys = append(w.Keys, b[4:4+n:4+n])
		b = b[4+n:]
	}
	return w, nil
}

// FinishValues seals what was built as a values frame: puts and deletes, none of them ended. The result is the builder's
// own buffer, valid until the next Reset. It returns ErrTooLarge for a payload over [MaxPayload] and ErrMalformed for a
// frame without an operation, with a mutation in it, or finished already.
func (b *Builder) FinishValues() ([]byte, error) {
	n := b.Len()
	if n > MaxPayload {
		return nil, fmt.Errorf("%w: %d bytes of values, at most %d", ErrTooLarge, n, MaxPayload)
	}
	if n <= 0 || b.count != 0 || b.end != HeaderSize {
		return nil, fmt.Errorf("%w: a values frame must have an operation and no end of a mutation", ErrMalformed)
	}
	putHeader(b.buf, Header{Kind: KindValues, Length: uint32(n)})
	b.buf = binary.LittleEndian.AppendUint32(b.buf, Checksum(0, b.buf))
	b.end = 0 // no second time
	return b.buf, nil
}

// CheckValues walks a whole values frame: every operation parses and is a put or a delete, and there is one at least.
// Bytes from the network or the disk are checked once, before anything of the frame is used.
func (f Frame) CheckValues() error {
	ops := f.Ops()
	some := false
	for ops.Next() {
		if k := ops.Op().Kind; k != OpPut && k != OpDelete {
			return fmt.Errorf("%w: a %s among values", ErrMalformed, k)
		}
		some = true
	}
	if ops.err == nil && !some {
		return fmt.Errorf("%w: a values frame without a value", ErrMalformed)
	}
	return ops.err
}

// AppendValuesEnd appends the frame that follows the last values: generation:16 offset:8, the one position at which all
// of them were read.
func AppendValuesEnd(dst []byte, p Position) []byte {
	return AppendControl(dst, KindValuesEnd, AppendPosition(nil, p))
}

// ParseValuesEnd reads the payload of a values-end frame. Bytes behind the position are left for later versions.
func ParseValuesEnd(b []byte) (Position, error) {
	if len(b) < PositionSize {
		return Position{}, malformed("a values-end of %d bytes", len(b))
	}
	p, err := ParsePosition(b[:PositionSize])
	if err == nil && p.IsZero() {
		err = malformed("a values-end without a position")
	}
	return p, err
}
