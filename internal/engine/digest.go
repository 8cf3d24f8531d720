package engine

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/zeebo/xxh3"
)

// Digest says what a set of engine keys and values is: how many there are, and the sum, modulo 2^128, of their hashes. A
// sum does not depend on order or on how a range was divided, and unlike XOR two equal entries do not cancel.
type Digest struct {
	Hi, Lo uint64
	Count  uint64
}

// Add is the digest of both sets.
func (d Digest) Add(e Digest) Digest {
	lo, carry := bits.Add64(d.Lo, e.Lo, 0)
	hi, _ := bits.Add64(d.Hi, e.Hi, carry)
	return Digest{Hi: hi, Lo: lo, Count: d.Count + e.Count}
}

// String gives 32 hex digits and the count.
func (d Digest) String() string { return fmt.Sprintf("%016x%016x/%d", d.Hi, d.Lo, d.Count) }

// hasher hashes entries: the 128-bit xxh3 of keylen:4 (little-endian) key value.
type hasher struct {
	b []byte
	h *xxh3.Hasher
}

func (h *hasher) entry(key, value []byte) xxh3.Uint128 {
	h.b = append(binary.LittleEndian.AppendUint32(h.b[:0], uint32(len(key))), key...)
	if len(value) <= 32<<10 {
		h.b = append(h.b, value...)
		return xxh3.Hash128(h.b)
	}
	if h.h == nil {
		h.h = xxh3.New()
	}
	h.h.Reset()
	_, _ = h.h.Write(h.b)
	_, _ = h.h.Write(value)
	return h.h.Sum128()
}

// Digest digests the first n entries of [from, to), all of them if n is not positive, and returns the engine key to go
// on from, nil at the end. Two engines that hold the same have the same digests; [KeyspaceBounds] bounds what they must
// have in common at one position.
func (v *View) Digest(from, to []byte, n int) (d Digest, next []byte, err error) {
	var h hasher
	err = v.Raw(from, to, func(key, value []byte) bool {
		if n > 0 && d.Count == uint64(n) {
			next = append([]byte(nil), key...)
			return false
		}
		s := h.entry(key, value)
		d = d.Add(Digest{Hi: s.Hi, Lo: s.Lo, Count: 1})
		return true
	})
	if err != nil {
		return Digest{}, nil, err
	}
	return d, next, nil
}

// Hashes calls f for every engine key in [from, to) and the hash that it adds to a digest, until it returns false. The
// key is valid during the call.
func (v *View) Hashes(from, to []byte, f func(key []byte, sum [16]byte) bool) error {
	var h hasher
	return v.Raw(from, to, func(key, value []byte) bool { return f(key, h.entry(key, value).Bytes()) })
}
