package resp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// drain parses everything that is buffered, copying the arguments, and returns the hard error if there was one.
func drain(p *Parser) (commands [][]string, err error) {
	for {
		args, err := p.Next()
		if err == ErrShort {
			return commands, nil
		}
		if err != nil {
			return commands, err
		}
		var c []string
		for _, a := range args {
			if cap(a) != len(a) {
				panic("an argument with spare capacity: an append to it would overwrite the next one")
			}
			c = append(c, string(a))
		}
		commands = append(commands, c)
	}
}

func TestParser(t *testing.T) {
	tests := []struct {
		in   string
		want string // commands joined by "|", arguments by ","
		err  string
	}{
		{in: "", want: ""},
		{in: "*1\r\n$4\r\nPING\r\n", want: "PING"},
		{in: "*2\r\n$3\r\nGET\r\n$0\r\n\r\n*1\r\n$4\r\nPING\r\n", want: "GET,|PING"},
		{in: "*0\r\n*-1\r\n*1\r\n$1\r\na\r\n", want: "a"},
		{in: "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\n\r\n\r\n\r\n", want: "SET,k,\r\n\r\n"},
		{in: "*2\r\n$3\r\nGET\r\n$5\r\nab", want: ""},
		// Hard errors, with Redis's texts.
		{in: "*x\r\n", err: "Protocol error: invalid multibulk length"},
		{in: "*01\r\n", err: "Protocol error: invalid multibulk length"},
		{in: "*\r\n", err: "Protocol error: invalid multibulk length"},
		{in: "*1048577\r\n", err: "Protocol error: invalid multibulk length"},
		{in: "*3000000000\r\n", err: "Protocol error: invalid multibulk length"},
		{in: "*99999999999999999999\r\n", err: "Protocol error: invalid multibulk length"},
		{in: "*1\r\n+4\r\n", err: "Protocol error: expected '$', got '+'"},
		{in: "*1\r\n\r\n", err: "Protocol error: expected '$', got ' '"},
		{in: "*1\r\n$-1\r\n", err: "Protocol error: invalid bulk length"},
		{in: "*1\r\n$536870913\r\n", err: "Protocol error: invalid bulk length"},
		{in: "*1\r\n$abc\r\n", err: "Protocol error: invalid bulk length"},
		{in: "*" + strings.Repeat("1", MaxLine+1), err: "Protocol error: too big mbulk count string"},
		{in: "*1\r\n$" + strings.Repeat("1", MaxLine+1), err: "Protocol error: too big bulk count string"},
		{in: strings.Repeat("a", MaxLine+1), err: "Protocol error: too big inline request"},
		{in: "*1\r\n$4\r\nPING\r\n*1\r\n!", want: "PING"},
		{in: "*1\r\n$4\r\nPING\r\n*1\r\n!\r\n", want: "PING", err: "Protocol error: expected '$', got '!'"},
		// Inline commands.
		{in: "PING\r\n", want: "PING"},
		{in: "PING\n", want: "PING"},
		{in: "\r\n\n   \r\nGET  a\tb \r\n", want: "GET,a,b"},
		{in: `SET k "a b\n\x41\"\\\q"` + "\r\n", want: "SET,k,a b\nA\"\\q"},
		{in: `SET k 'a b\n\' "'` + "\r\n", want: `SET,k,a b\n' "`},
		{in: `SET "" ''` + "\r\n", want: "SET,,"},
		{in: `a"b c"` + "\r\n", want: "ab c"},
		{in: `SET "a"b` + "\r\n", err: "Protocol error: unbalanced quotes in request"},
		{in: `SET "a` + "\r\n", err: "Protocol error: unbalanced quotes in request"},
		{in: `SET 'a` + "\r\n", err: "Protocol error: unbalanced quotes in request"},
		{in: `SET "\x4"` + "\r\n", want: "SET,x4"},
	}
	for _, tt := range tests {
		for _, step := range []int{1 << 20, 1, 3} {
			name := fmt.Sprintf("%.30q by %d", tt.in, step)
			var p Parser
			var got [][]string
			var err error
			for in := []byte(tt.in); len(in) > 0 && err == nil; {
				n := min(step, len(in))
				p.Feed(in[:n])
				in = in[n:]
				var more [][]string
				more, err = drain(&p)
				got = append(got, more...)
			}
			var commands []string
			for _, c := range got {
				commands = append(commands, strings.Join(c, ","))
			}
			if s := strings.Join(commands, "|"); s != tt.want {
				t.Errorf("%s: commands %q, want %q", name, s, tt.want)
			}
			text := ""
			if err != nil {
				text = err.Error()
				var hard *ProtocolError
				if !errors.As(err, &hard) {
					t.Errorf("%s: error %T", name, err)
				}
				if _, again := p.Next(); again != err {
					t.Errorf("%s: the second error is %v: a hard error is for ever", name, again)
				}
			}
			if text != tt.err {
				t.Errorf("%s: error %q, want %q", name, text, tt.err)
			}
		}
	}
}

// The arguments of a whole pipeline stay valid until the next Fill (invariant 4).
func TestParserPipelineStaysValid(t *testing.T) {
	var in, want []byte
	for i := range 2000 {
		in = AppendCommand(in, "SET", fmt.Sprintf("key:%d", i), "v")
		want = fmt.Appendf(want, "SET key:%d v\n", i)
	}
	var p Parser
	r := bytes.NewReader(in)
	var got []byte
	for {
		var pipeline [][][]byte
		_, err := p.Fill(r)
		for {
			args, err := p.Next()
			if err != nil {
				break
			}
			pipeline = append(pipeline, args)
		}
		for _, args := range pipeline {
			got = fmt.Appendf(got, "%s %s %s\n", args[0], args[1], args[2])
		}
		if err == io.EOF {
			break
		}
	}
	if !bytes.Equal(got, want) {
		t.Fatal("arguments changed between parsing and the next Fill")
	}
}

// A claimed length costs nothing until its bytes arrive (invariant 2), and a large bulk costs little more than itself.
func TestParserMemoryFollowsBytes(t *testing.T) {
	for _, in := range []string{"*1\r\n$536870912\r\nabc", "*1048576\r\n$1\r\na\r\n"} {
		var p Parser
		p.Feed([]byte(in))
		if _, err := p.Next(); err != ErrShort {
			t.Fatalf("%q: %v", in, err)
		}
		if _, err := p.Fill(strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		if m := p.Memory(); m > 64<<10 {
			t.Errorf("%q holds %d bytes", in, m)
		}
	}
	const size = 8 << 20
	in := AppendCommand(nil, []byte("SET"), []byte("k"), make([]byte, size))
	var p Parser
	r := bytes.NewReader(in)
	for {
		if _, err := p.Fill(r); err != nil {
			t.Fatal(err)
		}
		if p.Memory() > 3*max(len(in)-r.Len(), startBuffer) {
			t.Fatalf("%d bytes held for %d that arrived", p.Memory(), len(in)-r.Len())
		}
		args, err := p.Next()
		if err == ErrShort {
			continue
		}
		if err != nil || len(args) != 3 || len(args[2]) != size {
			t.Fatalf("%d arguments, %v", len(args), err)
		}
		break
	}
	if m := p.Memory(); m > size+64<<10 {
		t.Errorf("%d bytes held for a bulk of %d", m, size)
	}
	p.Feed([]byte("PING\r\n"))
	if m := p.Memory(); m > keepBuffer {
		t.Errorf("%d bytes held behind a large command, at most %d are kept", m, keepBuffer)
	}
}

// repeat is an endless pipeline.
type repeat struct {
	b  []byte
	at int
}

func (r *repeat) Read(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		c := copy(b[n:], r.b[r.at:])
		r.at = (r.at + c) % len(r.b)
		n += c
	}
	return n, nil
}

func TestParserAllocatesNothing(t *testing.T) {
	for name, in := range map[string][]byte{
		"multibulk": AppendCommand(nil, "SET", "key:000000123456", strings.Repeat("v", 64)),
		"inline":    []byte("SET key:000000123456 \"some value\"\r\n"),
	} {
		var p Parser
		r := &repeat{b: in}
		round := func() {
			_, _ = p.Fill(r)
			for {
				if _, err := p.Next(); err != nil {
					return
				}
			}
		}
		for range 10 {
			round()
		}
		if n := testing.AllocsPerRun(100, round); n != 0 {
			t.Errorf("%s: %v allocations a round", name, n)
		}
	}
}

// FuzzParser checks invariants 1 to 3: no panic, whole input and input cut anywhere give the same, and memory is
// backed by bytes.
func FuzzParser(f *testing.F) {
	f.Add([]byte("*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\n*1\r\n$4\r\nQU"), uint8(3))
	f.Add([]byte("SET k \"a\\x41\"\r\n*-1\r\n*1\r\n$536870912\r\n"), uint8(1))
	f.Add([]byte("*1048576\r\n$0\r\n\r\n"), uint8(200))
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		var whole Parser
		whole.Feed(in)
		want, wantErr := drain(&whole)
		var p Parser
		var got [][]string
		var err error
		for rest := in; len(rest) > 0 && err == nil; {
			n := min(int(step)+1, len(rest))
			p.Feed(rest[:n])
			rest = rest[n:]
			var more [][]string
			more, err = drain(&p)
			got = append(got, more...)
		}
		if !slices.EqualFunc(got, want, slices.Equal) {
			t.Fatalf("cut by %d: %q, whole: %q", step+1, got, want)
		}
		if fmt.Sprint(err) != fmt.Sprint(wantErr) {
			t.Fatalf("cut by %d: %v, whole: %v", step+1, err, wantErr)
		}
		if m := whole.Memory(); m > 64<<10+64*len(in) {
			t.Fatalf("%d bytes held for %d", m, len(in))
		}
	})
}

func BenchmarkParser(b *testing.B) {
	for _, size := range []int{3, 64, 1024} {
		b.Run(fmt.Sprintf("SET/%d", size), func(b *testing.B) {
			in := AppendCommand(nil, "SET", "key:000000123456", strings.Repeat("v", size))
			r := &repeat{b: in}
			var p Parser
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for i := 0; i < b.N; {
				if _, err := p.Fill(r); err != nil {
					b.Fatal(err)
				}
				for ; ; i++ {
					if _, err := p.Next(); err != nil {
						break
					}
				}
			}
		})
	}
}
