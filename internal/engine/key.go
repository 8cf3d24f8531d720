package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrKey means bytes that are no key, or no record, of this layout: a defect at whoever wrote them, or damage.
var ErrKey = errors.New("engine: not a key or record of this layout")

// The first byte of an engine key.
const (
	prefixSystem byte = 0x00 // 0x00 name
	prefixData   byte = 0x01 // 0x01 slot:2 hash:4 keylen:uvarint key sub:1 [part]
	prefixIndex  byte = 0x02 // 0x02 deadline:8 slot:2 hash:4 keylen:uvarint key
	prefixEnd    byte = 0x03
)

// SubRecord is the sub byte of a key's record. SubParts and above are for the parts of types that are kept in several
// entries; none exists yet.
const (
	SubRecord byte = 0x00
	SubParts  byte = 0x10
)

// MaxKey is the largest user key, in bytes. Longer ones are refused at the client.
const MaxKey = 64 << 10

var (
	positionKey = []byte("\x00position")
	// keyspaceFrom and keyspaceTo bound everything that belongs to user keys: data and expiry index.
	keyspaceFrom = []byte{prefixData}
	keyspaceTo   = []byte{prefixEnd}
)

// KeyspaceBounds is the range [from, to) of engine keys that holds all data and the expiry index, but not the position.
func KeyspaceBounds() (from, to []byte) { return []byte{prefixData}, []byte{prefixEnd} }

// DataBounds is the range [from, to) of engine keys that holds the data of the slots [fromSlot, toSlot).
func DataBounds(fromSlot, toSlot int) (from, to []byte) {
	return appendSlotBound(nil, fromSlot), appendSlotBound(nil, toSlot)
}

// appendSlotBound appends the first engine key that a record of the slot, or of a later one, can have.
func appendSlotBound(dst []byte, slot int) []byte {
	if slot >= Slots {
		return append(dst, prefixIndex)
	}
	return binary.BigEndian.AppendUint16(append(dst, prefixData), uint16(slot))
}

// appendPoint appends the first engine key that a record with this slot and hash can have.
func appendPoint(dst []byte, slot uint16, hash uint32) []byte {
	dst = binary.BigEndian.AppendUint16(append(dst, prefixData), slot)
	return binary.BigEndian.AppendUint32(dst, hash)
}

func appendUserKey(dst []byte, hash uint32, key []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, Slot(key))
	dst = binary.BigEndian.AppendUint32(dst, hash)
	dst = binary.AppendUvarint(dst, uint64(len(key)))
	return append(dst, key...)
}

// AppendDataKey appends the engine key of the user key's record.
func AppendDataKey(dst, key []byte) []byte { return appendDataKey(dst, Hash(key), key) }

func appendDataKey(dst []byte, hash uint32, key []byte) []byte {
	return append(appendUserKey(append(dst, prefixData), hash, key), SubRecord)
}

// AppendIndexKey appends the engine key of the user key's entry in the expiry index. The deadline is in milliseconds
// since 1970 and not negative.
func AppendIndexKey(dst []byte, deadline int64, key []byte) []byte {
	return appendIndexKey(dst, deadline, Hash(key), key)
}

func appendIndexKey(dst []byte, deadline int64, hash uint32, key []byte) []byte {
	dst = binary.BigEndian.AppendUint64(append(dst, prefixIndex), uint64(deadline))
	return appendUserKey(dst, hash, key)
}

// KeyKind says which of the layout's three spaces an engine key lies in.
type KeyKind uint8

// The kinds are the key's first byte.
const (
	KeySystem = KeyKind(prefixSystem)
	KeyData   = KeyKind(prefixData)
	KeyIndex  = KeyKind(prefixIndex)
)

// Key is a decoded engine key. Its slices point into the bytes that were decoded.
type Key struct {
	Kind     KeyKind
	Name     []byte // system: the name
	Deadline int64  // index: milliseconds since 1970
	Slot     uint16 // data and index
	Hash     uint32 // data and index
	User     []byte // data and index: the user's key
	Sub      byte   // data: SubRecord for the key's record
	Part     []byte // data: what follows Sub
}

// IsRecord reports whether the key holds a user key's record.
func (k Key) IsRecord() bool { return k.Kind == KeyData && k.Sub == SubRecord }

// DecodeKey takes an engine key apart and checks that its slot and hash are those of the user key in it, so a
// misplaced key is found wherever one is decoded. It copies nothing. The error is [ErrKey].
func DecodeKey(b []byte) (Key, error) {
	k, err := decodeKey(b)
	if err != nil {
		return Key{}, err
	}
	if k.Kind != KeySystem && (k.Slot != Slot(k.User) || k.Hash != Hash(k.User)) {
		return Key{}, fmt.Errorf("%w: %x: slot %d and hash %08x are not those of key %.64q", ErrKey, clip(b), k.Slot, k.Hash, k.User)
	}
	return k, nil
}

// decodeKey is DecodeKey without the check of slot and hash, for keys that come from the engine itself.
func decodeKey(b []byte) (k Key, err error) {
	bad := func(what string) (Key, error) { return Key{}, fmt.Errorf("%w: %x: %s", ErrKey, clip(b), what) }
	if len(b) == 0 {
		return Key{}, fmt.Errorf("%w: an empty key", ErrKey)
	}
	k.Kind = KeyKind(b[0])
	rest := b[1:]
	switch k.Kind {
	case KeySystem:
		k.Name = rest
		return k, nil
	case KeyIndex:
		if len(rest) < 8 {
			return bad("it ends inside the deadline")
		}
		k.Deadline = int64(binary.BigEndian.Uint64(rest))
		if k.Deadline < 0 {
			return bad("a negative deadline")
		}
		rest = rest[8:]
	case KeyData:
	default:
		return bad("an unknown first byte")
	}
	if len(rest) < 6 {
		return bad("it ends inside slot and hash")
	}
	k.Slot, k.Hash, rest = binary.BigEndian.Uint16(rest), binary.BigEndian.Uint32(rest[2:]), rest[6:]
	n, w := binary.Uvarint(rest)
	if w <= 0 || n > uint64(len(rest)-w) {
		return bad("the user key's length runs past the end")
	}
	k.User, rest = rest[w:w+int(n):w+int(n)], rest[w+int(n):]
	if k.Kind == KeyIndex {
		if len(rest) != 0 {
			return bad("bytes behind an index entry")
		}
		return k, nil
	}
	if len(rest) == 0 {
		return bad("no sub byte")
	}
	k.Sub, k.Part = rest[0], rest[1:]
	if k.Sub == SubRecord && len(k.Part) != 0 {
		return bad("bytes behind a record's key")
	}
	return k, nil
}

// clip bounds what an error message quotes.
func clip(b []byte) []byte { return b[:min(len(b), 64)] }
