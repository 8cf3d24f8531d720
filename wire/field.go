package wire

import (
	"encoding/binary"
	"fmt"
)

// Version is the protocol's version. A HELLO of another major version is refused before any data moves.
const Version uint16 = 1

// Field is the tag of a field of a handshake message: tag:2 length:4 bytes. A receiver skips a field that it does not
// know unless the tag has [FieldRequired] set, in which case it refuses the message with [ErrUnknown].
type Field uint16

// FieldRequired marks a field that must not be skipped.
const FieldRequired Field = 0x8000

// The fields. Integers are little-endian and of exactly the size given.
const (
	FieldCapabilities Field = 1  // bits:8
	FieldReplicaID    Field = 2  // id:16
	FieldNonce        Field = 3  // nonce:16
	FieldAnnounce     Field = 4  // address, UTF-8
	FieldCluster      Field = 5  // name, UTF-8
	FieldShard        Field = 6  // shard:4
	FieldShards       Field = 7  // count:4
	FieldPosition     Field = 8  // generation:16 offset:8
	FieldLineage      Field = 9  // (generation:16 first:8)*
	FieldUser         Field = 10 // name, UTF-8
	FieldPassword     Field = 11 // secret bytes
	FieldSnapshot     Field = 12 // snapshot:16
	FieldNode         Field = 13 // id:16 of the sender's data directory
	FieldCode         Field = 14 // refusal or bye code, ASCII
	FieldText         Field = 15 // explanation, UTF-8
	FieldReason       Field = 16 // full-sync reason, ASCII
	FieldFormat       Field = 17 // format:4, the storage format's number
	FieldNext         Field = 18 // offset:8, the sender's own next offset
	FieldAnnounceBase Field = 19 // "host:port-base" of the sender's replication ports, UTF-8
	FieldPath         Field = 20 // id:16*, node ids from the root of the chain down to the sender
	FieldTakeover     Field = 21 // id:16 of a handover
	FieldCancel       Field = 22 // flag:1, 1 takes a handover back
	FieldPositions    Field = 23 // (generation:16 offset:8)*, one a shard
	FieldOutcome      Field = 24 // what became of a handover, ASCII
	FieldSettles      Field = 25 // generation:16 offset:8, before which the sender's data is not whole
	FieldProbe        Field = 26 // flag:1, 1 only asks whether the receiver would take over
)

var fieldSizes = map[Field]int{
	FieldCapabilities: 8, FieldReplicaID: 16, FieldNonce: 16, FieldShard: 4, FieldShards: 4, FieldPosition: PositionSize,
	FieldSnapshot: 16, FieldNode: 16, FieldFormat: 4, FieldNext: 8, FieldSettles: PositionSize,
	FieldTakeover: 16, FieldCancel: 1, FieldProbe: 1,
}

func appendField(dst []byte, tag Field, b []byte) []byte {
	if len(b) == 0 {
		return dst
	}
	dst = binary.LittleEndian.AppendUint16(dst, uint16(tag))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(b)))
	return append(dst, b...)
}

func appendField32(dst []byte, tag Field, v uint32) []byte {
	return appendField(dst, tag, binary.LittleEndian.AppendUint32(nil, v))
}

func appendField64(dst []byte, tag Field, v uint64) []byte {
	return appendField(dst, tag, binary.LittleEndian.AppendUint64(nil, v))
}

func appendFieldID(dst []byte, tag Field, id [16]byte) []byte {
	if id == [16]byte{} {
		return dst
	}
	return appendField(dst, tag, id[:])
}

// MaxPath is the largest number of nodes in a chain, from the root down to the sender.
const MaxPath = 64

func appendIDs(dst []byte, ids []ID) []byte {
	for _, id := range ids {
		dst = append(dst, id[:]...)
	}
	return dst
}

func parseIDs(b []byte) ([]ID, error) {
	if len(b)%len(ID{}) != 0 || len(b)/len(ID{}) > MaxPath {
		return nil, malformed("a path of %d bytes: want 16 for each node, of which there are at most %d", len(b), MaxPath)
	}
	ids := make([]ID, len(b)/len(ID{}))
	for i := range ids {
		copy(ids[i][:], b[i*len(ID{}):])
	}
	return ids, nil
}

func appendFieldPosition(dst []byte, tag Field, p Position) []byte {
	if p.IsZero() {
		return dst
	}
	return appendField(dst, tag, AppendPosition(nil, p))
}

// message is everything that a handshake message can say; each message type copies out what it has a place for.
type message struct {
	version                                  uint16
	capabilities, next                       uint64
	replica, nonce, snapshot, node, takeover [16]byte
	announce, cluster, user, code, text      string
	reason, announceBase, outcome            string
	positions                                []Position
	cancel, probe                            bool
	path                                     []ID
	password                                 []byte
	shard, shards, format                    uint32
	position, settles                        Position
	lineage                                  Lineage
}

func parseMessage(kind Kind, b []byte) (m message, err error) {
	if len(b) < 2 {
		return m, fmt.Errorf("%w: a %s of %d bytes", ErrMalformed, kind, len(b))
	}
	m.version = binary.LittleEndian.Uint16(b)
	for b = b[2:]; len(b) > 0; {
		if len(b) < 6 {
			return m, fmt.Errorf("%w: %d bytes behind the last field of a %s", ErrMalformed, len(b), kind)
		}
		tag, n := Field(binary.LittleEndian.Uint16(b)), binary.LittleEndian.Uint32(b[2:])
		if uint64(n) > uint64(len(b)-6) {
			return m, fmt.Errorf("%w: field %d of a %s runs past its end", ErrMalformed, tag, kind)
		}
		v := b[6 : 6+n]
		b = b[6+n:]
		if size, fixed := fieldSizes[tag&^FieldRequired]; fixed && len(v) != size {
			return m, fmt.Errorf("%w: field %d of a %s has %d bytes, want %d", ErrMalformed, tag, kind, len(v), size)
		}
		if err := m.set(tag&^FieldRequired, v); err != nil {
			if err != errUnknownField {
				return m, err
			}
			if tag&FieldRequired != 0 {
				return m, fmt.Errorf("%w: field %d of a %s", ErrUnknown, tag&^FieldRequired, kind)
			}
		}
	}
	return m, nil
}

var errUnknownField = fmt.Errorf("%w: field", ErrUnknown)

func (m *message) set(tag Field, v []byte) (err error) {
	switch tag {
	case FieldCapabilities:
		m.capabilities = binary.LittleEndian.Uint64(v)
	case FieldReplicaID:
		copy(m.replica[:], v)
	case FieldNonce:
		copy(m.nonce[:], v)
	case FieldAnnounce:
		m.announce = string(v)
	case FieldCluster:
		m.cluster = string(v)
	case FieldShard:
		m.shard = binary.LittleEndian.Uint32(v)
	case FieldShards:
		m.shards = binary.LittleEndian.Uint32(v)
	case FieldPosition:
		m.position, err = ParsePosition(v)
	case FieldSettles:
		m.settles, err = ParsePosition(v)
	case FieldLineage:
		m.lineage, err = ParseLineage(v)
	case FieldUser:
		m.user = string(v)
	case FieldPassword:
		m.password = append([]byte(nil), v...)
	case FieldSnapshot:
		copy(m.snapshot[:], v)
	case FieldNode:
		copy(m.node[:], v)
	case FieldCode:
		m.code = string(v)
	case FieldText:
		m.text = string(v)
	case FieldReason:
		m.reason = string(v)
	case FieldFormat:
		m.format = binary.LittleEndian.Uint32(v)
	case FieldNext:
		m.next = binary.LittleEndian.Uint64(v)
	case FieldAnnounceBase:
		m.announceBase = string(v)
	case FieldPath:
		m.path, err = parseIDs(v)
	case FieldTakeover:
		copy(m.takeover[:], v)
	case FieldCancel:
		m.cancel = v[0] != 0
	case FieldProbe:
		m.probe = v[0] != 0
	case FieldPositions:
		m.positions, err = parsePositions(v)
	case FieldOutcome:
		m.outcome = string(v)
	default:
		return errUnknownField
	}
	return err
}
