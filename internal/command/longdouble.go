package command

import (
	"bytes"
	"math/big"
)

// Redis computes INCRBYFLOAT in C's long double, which on amd64 is the x87's 80-bit format: 64 bits of precision and
// exponents up to 2^16384. big.Float with a precision of 64 rounds like it; the range is checked here. On other machines
// Redis's own results differ from these in the last digits; ours are the same everywhere, as replicas need (pitfall 23).
const (
	ldPrecision = 64
	ldMaxExp    = 16384  // values are below 2^16384
	ldMinExp    = -16445 // the smallest positive value is 2^-16445
	ldMaxText   = 5*1024 - 1
)

var zero = newLongDouble()

func newLongDouble() *big.Float {
	return new(big.Float).SetPrec(ldPrecision).SetMode(big.ToNearestEven)
}

// parseLongDouble reads what C's strtold reads, if that is all of b: decimal or hexadecimal digits with an exponent, or
// an infinity. NaN, numbers out of range and leading blanks are refused, as Redis does.
func parseLongDouble(b []byte) (*big.Float, bool) {
	if len(b) == 0 || len(b) > ldMaxText {
		return nil, false
	}
	negative := b[0] == '-'
	if negative || b[0] == '+' {
		b = b[1:]
	}
	if is(b, "inf") || is(b, "infinity") {
		return newLongDouble().SetInf(negative), true
	}
	base, exponent := int64(10), byte('e')
	if len(b) > 2 && b[0] == '0' && b[1]|0x20 == 'x' {
		base, exponent, b = 16, 'p', b[2:]
	}
	digits, scale, rest := mantissa(b, base)
	if len(digits) == 0 {
		return nil, false
	}
	if len(rest) > 0 {
		e, ok := parseExponent(rest, exponent)
		if !ok {
			return nil, false
		}
		if base == 16 {
			scale = 4*scale + e
		} else {
			scale += e
		}
	} else if base == 16 {
		scale *= 4
	}
	digits = bytes.TrimLeft(digits, "0")
	f := newLongDouble()
	if len(digits) > 0 {
		m, _ := new(big.Int).SetString(string(digits), int(base))
		var ok bool
		if f, ok = scaled(m, base, scale, int64(len(digits))); !ok {
			return nil, false
		}
	}
	if negative {
		f.Neg(f)
	}
	return f, true
}

// mantissa takes digits with at most one point off the front of b. scale is minus the number of digits behind the point.
func mantissa(b []byte, base int64) (digits []byte, scale int64, rest []byte) {
	point := false
	for i, c := range b {
		switch {
		case c == '.' && !point:
			point = true
			continue
		case c >= '0' && c <= '9', base == 16 && (c|0x20) >= 'a' && (c|0x20) <= 'f':
			digits = append(digits, c)
			if point {
				scale--
			}
			continue
		}
		return digits, scale, b[i:]
	}
	return digits, scale, nil
}

// parseExponent reads a letter, a sign and digits, all of b. Exponents are cut where they are out of any range.
func parseExponent(b []byte, letter byte) (int64, bool) {
	if b[0]|0x20 != letter {
		return 0, false
	}
	b = b[1:]
	negative := false
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		negative, b = b[0] == '-', b[1:]
	}
	if len(b) == 0 {
		return 0, false
	}
	var e int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		e = min(e*10+int64(c-'0'), 1<<20)
	}
	if negative {
		e = -e
	}
	return e, true
}

// scaled is m times ten, or two for base 16, to the power scale, correctly rounded, and whether that is in range. m has
// the given number of digits and is not zero.
func scaled(m *big.Int, base, scale, digits int64) (*big.Float, bool) {
	f := newLongDouble()
	if base == 16 {
		f.SetInt(m)
		f.SetMantExp(f, int(scale))
		return f, inRange(f)
	}
	if magnitude := digits + scale; magnitude > 4940 || magnitude < -4960 {
		return nil, false
	}
	power := new(big.Int).Exp(big.NewInt(10), big.NewInt(max(scale, -scale)), nil)
	if scale >= 0 {
		f.SetInt(m.Mul(m, power))
	} else {
		f.SetRat(new(big.Rat).SetFrac(m, power))
	}
	return f, inRange(f)
}

// inRange reports whether the positive f neither overflows nor rounds to zero.
func inRange(f *big.Float) bool {
	var m big.Float
	e := f.MantExp(&m) // f = m * 2^e, m in [0.5, 1)
	if e == ldMinExp { // between half of the smallest value and itself; the half itself rounds to even, which is zero
		return m.Cmp(big.NewFloat(0.5)) > 0
	}
	return e > ldMinExp && e <= ldMaxExp
}

// addLongDouble adds, and reports whether the sum is a number and finite.
func addLongDouble(a, b *big.Float) (*big.Float, bool) {
	if a.IsInf() || b.IsInf() {
		return nil, false
	}
	sum := newLongDouble().Add(a, b)
	return sum, sum.MantExp(nil) <= ldMaxExp
}

// appendLongDouble appends f as Redis prints it for people: 17 digits behind the point, then without trailing zeros.
func appendLongDouble(dst []byte, f *big.Float) []byte {
	from := len(dst)
	dst = f.Append(dst, 'f', 17)
	dst = bytes.TrimRight(dst, "0")
	dst = bytes.TrimSuffix(dst, []byte("."))
	if string(dst[from:]) == "-0" {
		dst = append(dst[:from], '0')
	}
	return dst
}
