// Package units reads and writes byte sizes: as settings, exactly, and for people, rounded.
package units

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is a size in bytes, as a setting.
type Bytes int64

// Powers of two, and their names.
const (
	KiB Bytes = 1 << 10
	MiB Bytes = 1 << 20
	GiB Bytes = 1 << 30
	TiB Bytes = 1 << 40
)

var binary = []struct {
	size Bytes
	name string
}{{TiB, "TiB"}, {GiB, "GiB"}, {MiB, "MiB"}, {KiB, "KiB"}}

// suffixes are those of redis.conf (k is 1000, kb is 1024), and the unambiguous ones of the IEC.
var suffixes = map[string]Bytes{
	"": 1, "b": 1,
	"k": 1000, "kb": KiB, "kib": KiB,
	"m": 1000 * 1000, "mb": MiB, "mib": MiB,
	"g": 1000 * 1000 * 1000, "gb": GiB, "gib": GiB,
	"t": 1000 * 1000 * 1000 * 1000, "tb": TiB, "tib": TiB,
}

var errSize = errors.New("is not a size: write a whole number of bytes, or one with a unit, such as 512kb, 64MiB or 1GiB")

// ParseBytes reads a size: a whole number and a unit in any case, with or without a space between them.
func ParseBytes(s string) (Bytes, error) {
	digits := strings.TrimRight(strings.ToLower(strings.TrimSpace(s)), "bgikmt")
	unit := strings.ToLower(strings.TrimSpace(s))[len(digits):]
	digits = strings.TrimSpace(digits)
	size, known := suffixes[unit]
	n, err := strconv.ParseUint(digits, 10, 63)
	if errors.Is(err, strconv.ErrRange) || known && err == nil && n > uint64(math.MaxInt64/int64(size)) {
		return 0, fmt.Errorf("%q is over 8 EiB", s)
	}
	if !known || err != nil {
		return 0, fmt.Errorf("%q %w", s, errSize)
	}
	return Bytes(n) * size, nil
}

// UnmarshalText is [ParseBytes].
func (b *Bytes) UnmarshalText(text []byte) (err error) {
	*b, err = ParseBytes(string(text))
	return err
}

// String writes the size exactly, in the largest unit that divides it. [ParseBytes] reads it back.
func (b Bytes) String() string {
	for _, u := range binary {
		if b != 0 && b%u.size == 0 {
			return strconv.FormatInt(int64(b/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// Human writes n bytes for people: three digits or so and a unit.
func Human(n float64) string {
	for _, u := range binary {
		if v := n / float64(u.size); math.Abs(v) >= 0.9995 {
			return strconv.FormatFloat(v, 'f', max(0, 2-int(math.Log10(math.Max(math.Abs(v), 1)))), 64) + " " + u.name
		}
	}
	return strconv.FormatFloat(n, 'f', 0, 64) + " B"
}
