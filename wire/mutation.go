package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// OpKind says what an operation of a mutation does to the state.
type OpKind uint8

// The operations. A mutation is a run of operations and an OpEnd.
const (
	OpEnd         OpKind = 0 // end:1
	OpPut         OpKind = 1 // op:1 keylen:uvarint key vallen:uvarint value
	OpDelete      OpKind = 2 // op:1 keylen:uvarint key
	OpDeleteRange OpKind = 3 // op:1 keylen:uvarint start endlen:uvarint end; deletes the keys in [start, end)
)

// String gives the operation's name in docs/protocol.md.
func (k OpKind) String() string {
	switch k {
	case OpEnd:
		return "end"
	case OpPut:
		return "put"
	case OpDelete:
		return "delete"
	case OpDeleteRange:
		return "delete-range"
	}
	return fmt.Sprintf("op-%d", uint8(k))
}

// Op is one operation. For OpPut, Value is the value; for OpDeleteRange, Key and Value are the range's two ends. The
// slices point into the frame.
type Op struct {
	Kind       OpKind
	Key, Value []byte
}

// Ops walks the operations of a payload. The zero value is an empty walk.
//
//	for ops := f.Ops(); ops.Next(); {
//		apply(ops.Op())
//	}
type Ops struct {
	rest     []byte
	size     int // of the payload
	op       Op
	mutation uint32
	err      error
}

// Ops walks the frame's operations, mutation by mutation. The walk allocates nothing.
func (f Frame) Ops() Ops { return Ops{rest: f.Payload, size: len(f.Payload)} }

// Next moves to the next operation, OpEnd included, and reports whether there is one. It stops at the end and at
// the first malformed byte, for good; Err tells which.
func (o *Ops) Next() bool {
	if o.op.Kind == OpEnd && o.op.Key != nil {
		o.mutation++
	}
	if len(o.rest) == 0 || o.err != nil {
		o.op = Op{}
		return false
	}
	kind := OpKind(o.rest[0])
	rest := o.rest[1:]
	op := Op{Kind: kind}
	switch kind {
	case OpEnd:
		op.Key = rest[:0:0]
	case OpPut, OpDeleteRange:
		op.Key, rest = o.cut(rest)
		op.Value, rest = o.cut(rest)
	case OpDelete:
		op.Key, rest = o.cut(rest)
	default:
		o.err = fmt.Errorf("%w: operation %d", ErrUnknown, kind)
	}
	if o.err != nil {
		return false
	}
	o.op, o.rest = op, rest
	return true
}

func (o *Ops) cut(b []byte) (field, rest []byte) {
	if o.err != nil {
		return nil, nil
	}
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w) {
		o.err = fmt.Errorf("%w: an operation's length runs past the payload", ErrMalformed)
		return nil, nil
	}
	return b[w : w+int(n) : w+int(n)], b[w+int(n):]
}

// Op is the current operation.
func (o *Ops) Op() Op { return o.op }

// ValueAt is where in the frame's bytes, Raw, the current operation's Value begins.
func (o *Ops) ValueAt() int { return HeaderSize + o.size - len(o.rest) - len(o.op.Value) }

// Mutation is the index, from 0, of the mutation that the current operation belongs to.
func (o *Ops) Mutation() uint32 { return o.mutation }

// Err is why the walk stopped early, or nil.
func (o *Ops) Err() error { return o.err }

// Check walks a whole mutations frame: every operation parses, ranges are not inverted, and exactly Count mutations
// end. Bytes from the network or the disk are checked once, before anything of the frame is used.
func (f Frame) Check() error {
	ops := f.Ops()
	ended := true
	for ops.Next() {
		op := ops.Op()
		if op.Kind == OpDeleteRange && bytes.Compare(op.Key, op.Value) >= 0 {
			return fmt.Errorf("%w: a delete-range from %q to %q in mutation %d", ErrMalformed, op.Key, op.Value, ops.mutation)
		}
		ended = op.Kind == OpEnd
	}
	if ops.err != nil {
		return ops.err
	}
	if !ended || ops.mutation != f.Count {
		return fmt.Errorf("%w: %d mutations, the header says %d", ErrMalformed, ops.mutation, f.Count)
	}
	return nil
}

// Builder builds one mutations or values frame in place. The zero value is ready for Reset; its buffer is reused, so building allocates
// nothing once it has grown. A Builder is not safe for concurrent use.
//
//	b.Reset()
//	b.Put(key, value); b.Delete(other); b.End() // one mutation
//	raw := b.Finish(first, commitMicros)        // valid until the next Reset
type Builder struct {
	buf   []byte
	count uint32
	end   int // length of buf behind the last OpEnd
}

// Reset begins a new frame.
func (b *Builder) Reset() {
	if cap(b.buf) < HeaderSize {
		b.buf = make([]byte, HeaderSize, 4096)
	}
	b.buf = b.buf[:HeaderSize]
	b.count, b.end = 0, HeaderSize
}

// Shrink gives the buffer back if it has grown past limit bytes. Call it between frames.
func (b *Builder) Shrink(limit int) {
	if cap(b.buf) > limit {
		b.buf = nil
		b.Reset()
	}
}

// Count is the number of mutations ended so far.
func (b *Builder) Count() uint32 { return b.count }

// Len is the payload's size so far, in bytes.
func (b *Builder) Len() int { return len(b.buf) - HeaderSize }

// Room reports whether a put of these sizes still fits in the frame.
func (b *Builder) Room(key, value int) bool { return b.Len()+key+value+32 <= MaxPayload }

// Put adds an operation that sets key to value.
func (b *Builder) Put(key, value []byte) {
	b.buf = append(b.buf, byte(OpPut))
	b.field(key)
	b.field(value)
}

// PutParts is Put with a value that is the concatenation of two parts, to spare the caller a copy. It returns where
// in the payload the value lies, for [Builder.Bytes].
func (b *Builder) PutParts(key, head, tail []byte) (from, to int) {
	b.buf = append(b.buf, byte(OpPut))
	b.field(key)
	b.buf = binary.AppendUvarint(b.buf, uint64(len(head)+len(tail)))
	from = b.Len()
	b.buf = append(b.buf, head...)
	b.buf = append(b.buf, tail...)
	return from, b.Len()
}

// Delete adds an operation that removes key.
func (b *Builder) Delete(key []byte) {
	b.buf = append(b.buf, byte(OpDelete))
	b.field(key)
}

// DeleteRange adds an operation that removes every key in [start, end).
func (b *Builder) DeleteRange(start, end []byte) {
	b.buf = append(b.buf, byte(OpDeleteRange))
	b.field(start)
	b.field(end)
}

// End ends the current mutation.
func (b *Builder) End() {
	b.buf = append(b.buf, byte(OpEnd))
	b.count++
	b.end = len(b.buf)
}

// Bytes returns the payload's bytes [from, to). They are valid until the next call that adds or resets.
func (b *Builder) Bytes(from, to int) []byte { return b.buf[HeaderSize+from : HeaderSize+to] }

// Mark is a point of a frame in the making that [Builder.Rollback] can return to.
type Mark struct {
	len   int
	count uint32
	end   int
}

// Mark remembers the present point.
func (b *Builder) Mark() Mark { return Mark{len: len(b.buf), count: b.count, end: b.end} }

// Since reports whether anything was added after m.
func (b *Builder) Since(m Mark) bool { return len(b.buf) > m.len }

// Rollback forgets everything added after m.
func (b *Builder) Rollback(m Mark) { b.buf, b.count, b.end = b.buf[:m.len], m.count, m.end }

// Finish seals the frame: its first mutation's offset is first, and it was committed at commit (microseconds since
// 1970). The result is the builder's own buffer, valid until the next Reset. It returns ErrTooLarge for a payload over
// [MaxPayload] and ErrMalformed if there is no mutation, the last one was not ended, or the frame is finished already.
func (b *Builder) Finish(first uint64, commit int64) ([]byte, error) {
	n := b.Len()
	if n > MaxPayload {
		return nil, fmt.Errorf("%w: %d bytes of mutations, at most %d", ErrTooLarge, n, MaxPayload)
	}
	if b.count == 0 || b.end != len(b.buf) {
		return nil, fmt.Errorf("%w: a frame must end with the end of a mutation", ErrMalformed)
	}
	putHeader(b.buf, Header{Kind: KindMutations, Length: uint32(n), First: first, Commit: commit, Count: b.count})
	b.buf = binary.LittleEndian.AppendUint32(b.buf, Checksum(0, b.buf))
	return b.buf, nil
}

func (b *Builder) field(v []byte) {
	b.buf = binary.AppendUvarint(b.buf, uint64(len(v)))
	b.buf = append(b.buf, v...)
}

// Batch is a run of whole mutations frames that are applied together, and the position that they bring the shard to.
// Whoever makes a Batch has checked its frames ([ParseFrame], [Frame.Check]).
type Batch struct {
	Frames []byte   // whole frames, contiguous
	First  uint64   // offset of the first mutation
	At     Position // where the shard is once the batch is applied, as [Lineage.Reached]: its generation is that of the last mutation
}

// Each calls f for every operation of the batch, OpEnd included, in order, and returns the first error.
func (b Batch) Each(f func(Op) error) error {
	for rest := b.Frames; len(rest) > 0; {
		frame, err := ParseFramePayload(rest)
		if err != nil {
			return err
		}
		ops := frame.Ops()
		for ops.Next() {
			if err := f(ops.Op()); err != nil {
				return err
			}
		}
		if ops.err != nil {
			return ops.err
		}
		rest = rest[len(frame.Raw):]
	}
	return nil
}

// ParseFramePayload is [ParseFrame] without the payload's checksum, for bytes that were checked already.
func ParseFramePayload(b []byte) (Frame, error) {
	h, err := ParseHeader(b)
	if err != nil {
		return Frame{}, err
	}
	n := h.Size()
	if len(b) < n {
		return Frame{}, ErrShort
	}
	return Frame{Header: h, Payload: b[HeaderSize : n-TrailerSize : n-TrailerSize], Raw: b[:n:n]}, nil
}
