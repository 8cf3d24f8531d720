package resp

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

func TestWriter(t *testing.T) {
	tests := []struct {
		name   string
		write  func(w *Writer)
		v2, v3 string
	}{
		{"simple", func(w *Writer) { w.Simple("PONG") }, "+PONG\r\n", "+PONG\r\n"},
		{"ok", func(w *Writer) { w.OK() }, "+OK\r\n", "+OK\r\n"},
		{"error", func(w *Writer) { w.Error("ERR a\r\nb") }, "-ERR a  b\r\n", "-ERR a  b\r\n"},
		{"int", func(w *Writer) { w.Int(math.MinInt64) }, ":-9223372036854775808\r\n", ":-9223372036854775808\r\n"},
		{"bulk", func(w *Writer) { w.Bulk([]byte("a\r\nb")) }, "$4\r\na\r\nb\r\n", "$4\r\na\r\nb\r\n"},
		{"bulk string", func(w *Writer) { w.BulkString("") }, "$0\r\n\r\n", "$0\r\n\r\n"},
		{"null", func(w *Writer) { w.Null() }, "$-1\r\n", "_\r\n"},
		{"null array", func(w *Writer) { w.NullArray() }, "*-1\r\n", "_\r\n"},
		{"array", func(w *Writer) { w.Array(2) }, "*2\r\n", "*2\r\n"},
		{"map", func(w *Writer) { w.Map(2) }, "*4\r\n", "%2\r\n"},
		{"set", func(w *Writer) { w.Set(2) }, "*2\r\n", "~2\r\n"},
		{"push", func(w *Writer) { w.Push(2) }, "*2\r\n", ">2\r\n"},
		{"true", func(w *Writer) { w.Bool(true) }, ":1\r\n", "#t\r\n"},
		{"false", func(w *Writer) { w.Bool(false) }, ":0\r\n", "#f\r\n"},
		{"double", func(w *Writer) { w.Double(0.1) }, "$19\r\n0.10000000000000001\r\n", ",0.10000000000000001\r\n"},
		{"whole double", func(w *Writer) { w.Double(100000) }, "$6\r\n100000\r\n", ",100000\r\n"},
		{"huge double", func(w *Writer) { w.Double(1e300) }, "$23\r\n1.0000000000000001e+300\r\n", ",1.0000000000000001e+300\r\n"},
		{"inf", func(w *Writer) { w.Double(math.Inf(-1)) }, "$4\r\n-inf\r\n", ",-inf\r\n"},
		{"big number", func(w *Writer) { w.BigNumber("123") }, "$3\r\n123\r\n", "(123\r\n"},
		{"verbatim", func(w *Writer) { w.Verbatim("txt", "hi") }, "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"},
	}
	for _, tt := range tests {
		for proto, want := range map[int]string{2: tt.v2, 3: tt.v3} {
			w := Writer{Proto: proto}
			tt.write(&w)
			if string(w.Buf) != want {
				t.Errorf("%s in RESP%d: %q, want %q", tt.name, proto, w.Buf, want)
			}
		}
	}
}

func TestParseInt(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "7": 7, "-7": -7, "9223372036854775807": math.MaxInt64, "-9223372036854775808": math.MinInt64} {
		if got, ok := ParseInt([]byte(in)); !ok || got != want {
			t.Errorf("%q: %d, %v", in, got, ok)
		}
	}
	for _, in := range []string{"", "-", "+1", "01", "-0", "00", " 1", "1 ", "1.0", "a", "9223372036854775808", "-9223372036854775809", "18446744073709551616", "99999999999999999999", "100000000000000000000"} {
		if got, ok := ParseInt([]byte(in)); ok {
			t.Errorf("%q is taken for %d", in, got)
		}
	}
}

func TestReader(t *testing.T) {
	in := "+OK\r\n-ERR no\r\n:-5\r\n$3\r\na\r\n\r\n$-1\r\n*-1\r\n_\r\n#t\r\n,1.5\r\n(123\r\n=6\r\ntxt:hi\r\n" +
		"*2\r\n:1\r\n*0\r\n%1\r\n+k\r\n:1\r\n~1\r\n:1\r\n>1\r\n+m\r\n|1\r\n+a\r\n+b\r\n:9\r\n,inf\r\n!5\r\nERR x\r\n"
	r := NewReader(strings.NewReader(in))
	var raw []byte
	var got []Value
	for {
		b, v, err := r.ReadRaw()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		raw = append(raw, b...)
		got = append(got, v)
	}
	if string(raw) != in {
		t.Errorf("raw bytes %q, want %q", raw, in)
	}
	var kinds []byte
	for _, v := range got {
		kinds = append(kinds, v.Kind)
	}
	if string(kinds) != "+-:$___#,(=*%~>:,!" {
		t.Errorf("kinds %q", kinds)
	}
	if v, ok := got[12].Get("k"); !ok || v.Int != 1 {
		t.Errorf("map %+v", got[12])
	}
	if got[1].Err() == nil || got[1].Err().Error() != "ERR no" || got[0].Err() != nil || !got[4].IsNull() || got[10].Str != "hi" {
		t.Errorf("values %+v", got)
	}
}

func TestReaderErrors(t *testing.T) {
	for _, in := range []string{"x\r\n", "+OK\n", ":x\r\n", "$-2\r\n", "$1\r\nabc", "#x\r\n", ",x\r\n", "=3\r\nabc\r\n", "*-2\r\n",
		"%-1\r\n", "$536870913\r\n", "%9223372036854775807\r\n", strings.Repeat("*1\r\n", 100)} {
		if _, err := NewReader(strings.NewReader(in)).Read(); !errors.Is(err, ErrReply) {
			t.Errorf("%q: %v", in, err)
		}
	}
	for _, in := range []string{"+OK", "$5\r\nab", "$536870912\r\nab", "*2\r\n:1\r\n", "*1000000000\r\n"} {
		if _, err := NewReader(strings.NewReader(in)).Read(); err != io.ErrUnexpectedEOF {
			t.Errorf("%q: %v", in, err)
		}
	}
}

// A command that was built parses to itself, and a reply that was built reads as itself.
func TestAppendCommandParses(t *testing.T) {
	var p Parser
	p.Feed(AppendCommand(nil, "SET", "", "a\r\n$"))
	args, err := p.Next()
	if err != nil || string(bytes.Join(args, []byte("|"))) != "SET||a\r\n$" {
		t.Fatalf("%q, %v", args, err)
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("*2\r\n$1\r\na\r\n%1\r\n+a\r\n,1\r\n"))
	f.Add([]byte("=8\r\ntxt:abcd\r\n|1\r\n+a\r\n+b\r\n_\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := NewReader(bytes.NewReader(in))
		n := 0
		for {
			raw, _, err := r.ReadRaw()
			if err != nil {
				return
			}
			if !bytes.HasPrefix(in[n:], raw) {
				t.Fatalf("raw bytes %q are not those at %d", raw, n)
			}
			n += len(raw)
		}
	})
}

func BenchmarkWriter(b *testing.B) {
	w := Writer{Buf: make([]byte, 0, 1<<16)}
	value := []byte(strings.Repeat("v", 64))
	b.ReportAllocs()
	for b.Loop() {
		w.Buf = w.Buf[:0]
		for range 64 {
			w.OK()
			w.Bulk(value)
			w.Int(12345)
		}
	}
}
