package resp

import "math"

// ParseInt reads a signed decimal integer as strictly as Redis's string2ll does: no spaces, no plus sign, no leading
// zeros, no "-0", nothing behind it. It reports whether b is such a number and fits.
func ParseInt(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 20 {
		return 0, false
	}
	if len(b) == 1 && b[0] == '0' {
		return 0, true
	}
	negative := b[0] == '-'
	if negative {
		b = b[1:]
	}
	if len(b) == 0 || b[0] < '1' || b[0] > '9' {
		return 0, false
	}
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		d := uint64(c - '0')
		if n > (math.MaxUint64-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	if negative {
		if n > 1<<63 {
			return 0, false
		}
		return -int64(n), true // 1<<63 wraps to the smallest int64, which is what is meant
	}
	if n > math.MaxInt64 {
		return 0, false
	}
	return int64(n), true
}
