package loadgen

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// Order is how keys are drawn.
type Order int

const (
	Uniform    Order = iota // each key as likely as any other
	Zipf                    // a few keys take most: exponent 0.99, as in YCSB, scattered over the key space
	Sequential              // each key once, in ascending order
)

// The key of number n is "key:" and n in twelve digits, as redis-benchmark has it.
const (
	keyPrefix = "key:"
	keyDigits = 12
	keyLen    = len(keyPrefix) + keyDigits
)

// LagKey is the key that Lag writes.
const LagKey = "lag"

// Key is the key of number n.
func Key(n uint64) string {
	b := append([]byte(keyPrefix), make([]byte, keyDigits)...)
	putDigits(b[len(keyPrefix):], n)
	return string(b)
}

// putDigits writes n in decimal over the whole of b, with leading zeros.
func putDigits(b []byte, n uint64) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
}

// random is a small fast generator, wyrand. Its bytes do not compress; nothing depends on more.
type random uint64

func (r *random) next() uint64 {
	*r += 0xa0761d6478bd642f
	hi, lo := bits.Mul64(uint64(*r), uint64(*r)^0xe7037ed1a0b428db)
	return hi ^ lo
}

// below is uniform in [0, n).
func (r *random) below(n uint64) uint64 {
	hi, _ := bits.Mul64(r.next(), n)
	return hi
}

func (r *random) fill(b []byte) {
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, r.next())
		b = b[8:]
	}
	if len(b) > 0 {
		var last [8]byte
		binary.LittleEndian.PutUint64(last[:], r.next())
		copy(b, last[:])
	}
}

// zipfSteps is how many draws are computed before a run; it then walks through them, so that a draw costs a load.
const zipfSteps = 1 << 20

// zipfTable draws steps key numbers below n by Zipf's law with the exponent 0.99, by the method of Gray et al., "Quickly
// generating billion-record synthetic databases" (1994). Ranks are scattered by a permutation, so that hot keys are no neighbours.
func zipfTable(r *random, n uint64, steps int) []uint32 {
	const theta = 0.99
	zeta := 0.0
	for i := uint64(1); i <= n; i++ {
		zeta += 1 / math.Pow(float64(i), theta)
	}
	alpha := 1 / (1 - theta)
	zeta2 := 1 + math.Pow(0.5, theta)
	eta := (1 - math.Pow(2/float64(n), 1-theta)) / (1 - zeta2/zeta)
	table := make([]uint32, steps)
	for i := range table {
		u := float64(r.next()>>11) / (1 << 53)
		var rank uint64
		switch uz := u * zeta; {
		case uz < 1:
		case uz < zeta2:
			rank = 1
		default:
			rank = uint64(float64(n) * math.Pow(eta*u-eta+1, alpha))
		}
		table[i] = uint32(scatter(min(rank, n-1), n))
	}
	return table
}

// scatter is a permutation of [0, n): multiplication by a number that shares no factor with n.
func scatter(rank, n uint64) uint64 {
	m := uint64(2654435761)
	for gcd(m, n) != 1 {
		m += 2
	}
	hi, lo := bits.Mul64(rank, m)
	_, rem := bits.Div64(hi%n, lo, n)
	return rem
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
