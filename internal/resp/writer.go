package resp

import (
	"math"
	"strconv"
)

// Writer builds replies by appending to Buf. Its methods never fail and never look back, so a caller may send Buf and
// truncate it between any two replies. Proto is 2 or 3 and may change between replies; the types that RESP2 lacks fall
// back to what Redis sends there. The zero value speaks RESP2.
type Writer struct {
	Buf   []byte
	Proto int
}

func (w *Writer) v3() bool { return w.Proto >= 3 }

func (w *Writer) header(kind byte, n int64) {
	w.Buf = append(w.Buf, kind)
	w.Buf = strconv.AppendInt(w.Buf, n, 10)
	w.Buf = append(w.Buf, '\r', '\n')
}

// Simple writes "+s". s must hold no line end.
func (w *Writer) Simple(s string) {
	w.Buf = append(w.Buf, '+')
	w.Buf = append(w.Buf, s...)
	w.Buf = append(w.Buf, '\r', '\n')
}

// OK writes "+OK".
func (w *Writer) OK() { w.Buf = append(w.Buf, "+OK\r\n"...) }

// Error writes "-text". text begins with its code ("ERR no such key"); line ends within it become spaces, as in Redis.
func (w *Writer) Error(text string) {
	w.Buf = append(w.Buf, '-')
	for i := 0; i < len(text); i++ {
		w.Buf = append(w.Buf, printable(text[i]))
	}
	w.Buf = append(w.Buf, '\r', '\n')
}

// printable maps the line ends that an error line cannot hold, as Redis does.
func printable(c byte) byte {
	if c == '\r' || c == '\n' {
		return ' '
	}
	return c
}

// Int writes ":n".
func (w *Writer) Int(n int64) { w.header(':', n) }

// Bulk writes b as a bulk string.
func (w *Writer) Bulk(b []byte) {
	w.header('$', int64(len(b)))
	w.Buf = append(w.Buf, b...)
	w.Buf = append(w.Buf, '\r', '\n')
}

// BulkString is Bulk for a string.
func (w *Writer) BulkString(s string) {
	w.header('$', int64(len(s)))
	w.Buf = append(w.Buf, s...)
	w.Buf = append(w.Buf, '\r', '\n')
}

// Null writes the absent value: "$-1" in RESP2, "_" in RESP3.
func (w *Writer) Null() {
	if w.v3() {
		w.Buf = append(w.Buf, "_\r\n"...)
		return
	}
	w.Buf = append(w.Buf, "$-1\r\n"...)
}

// NullArray writes the absent array: "*-1" in RESP2, "_" in RESP3.
func (w *Writer) NullArray() {
	if w.v3() {
		w.Buf = append(w.Buf, "_\r\n"...)
		return
	}
	w.Buf = append(w.Buf, "*-1\r\n"...)
}

// Array announces n elements, to be written next.
func (w *Writer) Array(n int) { w.header('*', int64(n)) }

// Map announces n pairs; in RESP2 an array of 2n.
func (w *Writer) Map(n int) {
	if w.v3() {
		w.header('%', int64(n))
		return
	}
	w.header('*', 2*int64(n))
}

// Set announces n members of a set; in RESP2 an array.
func (w *Writer) Set(n int) {
	if w.v3() {
		w.header('~', int64(n))
		return
	}
	w.header('*', int64(n))
}

// Push announces an out-of-band message of n elements; in RESP2 an array.
func (w *Writer) Push(n int) {
	if w.v3() {
		w.header('>', int64(n))
		return
	}
	w.header('*', int64(n))
}

// Bool writes a truth value; in RESP2 the integer 1 or 0.
func (w *Writer) Bool(v bool) {
	switch {
	case w.v3() && v:
		w.Buf = append(w.Buf, "#t\r\n"...)
	case w.v3():
		w.Buf = append(w.Buf, "#f\r\n"...)
	case v:
		w.Int(1)
	default:
		w.Int(0)
	}
}

// Double writes f with 17 significant digits; in RESP2 as a bulk string.
func (w *Writer) Double(f float64) {
	var digits [32]byte
	text := digits[:0]
	switch {
	case math.IsInf(f, 1):
		text = append(text, "inf"...)
	case math.IsInf(f, -1):
		text = append(text, "-inf"...)
	case math.IsNaN(f):
		text = append(text, "nan"...)
	default:
		text = strconv.AppendFloat(text, f, 'g', 17, 64)
	}
	w.number(',', text)
}

// BigNumber writes decimal digits of any length; in RESP2 as a bulk string.
func (w *Writer) BigNumber(digits string) { w.number('(', []byte(digits)) }

func (w *Writer) number(kind byte, text []byte) {
	if !w.v3() {
		w.Bulk(text)
		return
	}
	w.Buf = append(w.Buf, kind)
	w.Buf = append(w.Buf, text...)
	w.Buf = append(w.Buf, '\r', '\n')
}

// Verbatim writes text meant to be shown as it is; format is three letters ("txt"). In RESP2 it is a bulk string.
func (w *Writer) Verbatim(format, text string) {
	if !w.v3() {
		w.BulkString(text)
		return
	}
	w.header('=', int64(len(text)+4))
	w.Buf = append(w.Buf, format...)
	w.Buf = append(w.Buf, ':')
	w.Buf = append(w.Buf, text...)
	w.Buf = append(w.Buf, '\r', '\n')
}
