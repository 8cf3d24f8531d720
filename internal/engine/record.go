package engine

import (
	"encoding/binary"
	"fmt"
)

// Type is the type of a user key's value. Zero is no type.
type Type uint8

// The types. Only strings exist today; the others' numbers are reserved so that they never change.
const (
	TypeString    Type = 1
	TypeHash      Type = 2
	TypeList      Type = 3
	TypeSet       Type = 4
	TypeSortedSet Type = 5
)

// String gives the name that Redis's TYPE answers.
func (t Type) String() string {
	switch t {
	case 0:
		return "none"
	case TypeString:
		return "string"
	case TypeHash:
		return "hash"
	case TypeList:
		return "list"
	case TypeSet:
		return "set"
	case TypeSortedSet:
		return "zset"
	}
	return fmt.Sprintf("type-%d", uint8(t))
}

// Record is what a user key holds.
type Record struct {
	Type     Type
	Deadline int64  // milliseconds since 1970; 0 means that the key does not expire. Never negative
	Value    []byte // a string's bytes
}

// Expired reports whether the record's deadline has passed at now, in milliseconds since 1970. Like Redis, a key still
// lives in the millisecond of its deadline.
func (r Record) Expired(now int64) bool { return r.Deadline != 0 && now > r.Deadline }

const flagDeadline = 0x01

// maxRecordHead is the size of the longest record head.
const maxRecordHead = 10

// appendRecordHead appends type:1 flags:1 [deadline:8], what a record has before its payload.
func appendRecordHead(dst []byte, r Record) []byte {
	if r.Deadline == 0 {
		return append(dst, byte(r.Type), 0)
	}
	return binary.BigEndian.AppendUint64(append(dst, byte(r.Type), flagDeadline), uint64(r.Deadline))
}

// AppendRecord appends the record's encoding: type:1 flags:1 [deadline:8] payload.
func AppendRecord(dst []byte, r Record) []byte {
	return append(appendRecordHead(dst, r), r.Value...)
}

// DecodeRecord reads what [AppendRecord] wrote. Value points into b. The error is [ErrKey].
func DecodeRecord(b []byte) (Record, error) {
	if len(b) < 2 || b[0] == 0 {
		return Record{}, fmt.Errorf("%w: a record %x", ErrKey, clip(b))
	}
	r := Record{Type: Type(b[0])}
	switch b[1] {
	case 0:
		r.Value = b[2:]
	case flagDeadline:
		if len(b) < maxRecordHead {
			return Record{}, fmt.Errorf("%w: a record %x that ends inside its deadline", ErrKey, clip(b))
		}
		r.Deadline, r.Value = int64(binary.BigEndian.Uint64(b[2:])), b[maxRecordHead:]
		if r.Deadline <= 0 {
			return Record{}, fmt.Errorf("%w: a record with the deadline %d", ErrKey, r.Deadline)
		}
	default:
		return Record{}, fmt.Errorf("%w: a record with flags %#x", ErrKey, b[1])
	}
	return r, nil
}
