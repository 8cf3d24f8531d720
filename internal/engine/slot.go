package engine

import (
	"bytes"

	"github.com/understudy-kv/understudy/wire"
)

// Slots is the number of hash slots, as in Redis Cluster.
const Slots = 16384

// crc16Tables[i] advances a byte by i more bytes, so that eight bytes are done at once.
var crc16Tables = func() (t [8][256]uint16) {
	for i := range t[0] {
		crc := uint16(i) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
		t[0][i] = crc
	}
	for n := 1; n < len(t); n++ {
		for i, crc := range t[n-1] {
			t[n][i] = crc<<8 ^ t[0][crc>>8]
		}
	}
	return t
}()

// crc16 is CRC-16/XMODEM: polynomial 0x1021, initial value 0, nothing reflected.
func crc16(b []byte) (crc uint16) {
	t := &crc16Tables
	for ; len(b) >= 8; b = b[8:] {
		crc = t[7][b[0]^byte(crc>>8)] ^ t[6][b[1]^byte(crc)] ^ t[5][b[2]] ^ t[4][b[3]] ^
			t[3][b[4]] ^ t[2][b[5]] ^ t[1][b[6]] ^ t[0][b[7]]
	}
	for _, c := range b {
		crc = crc<<8 ^ t[0][byte(crc>>8)^c]
	}
	return crc
}

// Slot is the key's hash slot by Redis's rule: if the key has a "{" and a "}" behind it with at least one byte between,
// only the bytes between the first "{" and the first "}" behind it are hashed.
func Slot(key []byte) uint16 {
	if i := bytes.IndexByte(key, '{'); i >= 0 {
		if n := bytes.IndexByte(key[i+1:], '}'); n > 0 {
			key = key[i+1 : i+1+n]
		}
	}
	return crc16(key) & (Slots - 1)
}

// ShardOf is the shard, of the given number of them, that owns the slot.
func ShardOf(slot uint16, shards int) int { return int(slot) * shards / Slots }

// SlotRange is the range of slots [from, to) that the shard owns: the inverse of [ShardOf].
func SlotRange(shard, shards int) (from, to int) {
	ceil := func(i int) int { return (i*Slots + shards - 1) / shards }
	return ceil(shard), ceil(shard + 1)
}

// Hash is the 32-bit hash of a user key that orders the keys of one slot: its CRC32C.
func Hash(key []byte) uint32 { return wire.Checksum(0, key) }

// Cursor is the SCAN cursor of the place where the keys with this slot and hash are.
func Cursor(slot uint16, hash uint32) uint64 { return uint64(slot)<<32 | uint64(hash) }

// CursorSlot is the slot that a SCAN cursor stands in. A client can send any number: ok is false for one that is no
// cursor.
func CursorSlot(cursor uint64) (slot uint16, ok bool) {
	return uint16(cursor >> 32), cursor < Slots<<32
}
