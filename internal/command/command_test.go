package command

import (
	"strings"
	"testing"

	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/wire"
)

// script runs lines of "COMMAND args => reply", in which ↵ stands for a line end, and "" for an empty argument.
func script(t *testing.T, x *executor, lines ...string) {
	t.Helper()
	for _, line := range lines {
		call, want, _ := strings.Cut(line, " => ")
		args := words(strings.Fields(call)...)
		for i, a := range args {
			if string(a) == `""` {
				args[i] = nil
			}
		}
		got := strings.TrimSuffix(strings.ReplaceAll(string(x.do(args)), "\r\n", "↵"), "↵")
		if got != want {
			t.Errorf("%s => %s, want %s", call, got, want)
		}
	}
}

// Expiry on a clock that stands still, to the millisecond, as no real Redis can be asked.
func TestExpiry(t *testing.T) {
	x := newExecutor(t, 1)
	x.now = 1_000_000
	script(t, x,
		"SET k v PX 1500 => +OK",
		"PTTL k => :1500", "TTL k => :2", "EXPIRETIME k => :1002", "PEXPIRETIME k => :1001500")
	x.now = 1_001_001
	script(t, x, "TTL k => :0", "PTTL k => :499")
	x.now = 1_001_500
	script(t, x, "GET k => $1↵v", "PTTL k => :0")
	x.now++
	script(t, x, "GET k => $-1", "PTTL k => :-2", "DEL k => :0", "PERSIST k => :0", "EXPIRE k 10 => :0", "RENAME k l => -ERR no such key",
		"SET k w XX => $-1", "SETNX k w => :1", "TTL k => :-1")

	script(t, x,
		"EXPIRE k 100 GT => :0", "EXPIRE k 100 XX => :0", "EXPIRE k 100 LT => :1", "EXPIRE k 100 GT => :0", "EXPIRE k 101 GT => :1",
		"EXPIRE k 101 LT => :0", "EXPIRE k 5 NX => :0", "EXPIRE k 5 XX LT => :1", "INCRBYFLOAT k 1 => -ERR value is not a valid float",
		"SET k 1 KEEPTTL => +OK", "INCRBYFLOAT k 0.5 => $3↵1.5", "APPEND k 0 => :4", "SETRANGE k 0 2 => :4", "TTL k => :5",
		"GETEX k => $4↵2.50", "TTL k => :5", "GETEX k PERSIST => $4↵2.50", "TTL k => :-1", "GETEX k EX 7 => $4↵2.50", "TTL k => :7",
		"COPY k l => :1", "TTL l => :7", "RENAME l m => +OK", "TTL m => :7", "GETSET m n => $4↵2.50", "TTL m => :-1",
		"EXPIRE k 0 => :1", "EXISTS k => :0", "GETEX m PXAT 1 => $1↵n", "EXISTS m => :0",
		"SET k v PXAT 1 => +OK", "EXISTS k => :0", "SET k v => +OK", "SET k w GET PXAT 1 => $1↵v", "EXISTS k => :0")
}

// A deadline that has passed is a delete on the wire, and nothing is written of a key that was not there (pitfall 24).
func TestPastDeadlineDeletes(t *testing.T) {
	x := newExecutor(t, 1)
	x.now, x.every = 1_000_000, 1<<30
	ops := func(call string) string {
		s := x.shards[0]
		from := s.b.Len()
		x.do(words(strings.Fields(call)...))
		var kinds []string
		for o := (wire.Frame{Payload: s.b.Bytes(from, s.b.Len())}).Ops(); o.Next(); {
			kinds = append(kinds, o.Op().Kind.String())
		}
		return strings.Join(kinds, " ")
	}
	for _, tt := range []struct{ call, want string }{
		{"SET k v", "put end"},
		{"EXPIRE k -1", "delete end"},
		{"EXPIRE k -1", ""},
		{"SET k v PXAT 1", ""},
		{"SET k v PXAT 2000000", "put put end"},
		{"SET k w PXAT 1", "delete end"},
		{"MSET a 1 b 2", "put put end"},
		{"DEL a b c", "delete delete end"},
		{"INCR n", "put end"},
		{"RENAME n o", "put delete end"},
		{"GET o", ""},
		{"SET o x NX", ""},
	} {
		if got := ops(tt.call); got != tt.want {
			t.Errorf("%s writes %q, want %q", tt.call, got, tt.want)
		}
	}
}

// Types to come: commands on strings refuse them and write nothing, commands on keys take them along.
func TestWrongType(t *testing.T) {
	x := newExecutor(t, 1)
	other := func() {
		s := x.shards[0]
		s.e.Tx().Begin(&s.b, x.group, 1)
		s.e.Tx().Set([]byte("h"), engine.Record{Type: engine.TypeHash, Value: []byte("?")})
		s.e.Tx().End()
	}
	other()
	wrong := "-WRONGTYPE Operation against a key holding the wrong kind of value"
	for _, call := range []string{"GET h", "STRLEN h", "GETSET h v", "GETDEL h", "GETEX h", "GETEX h EX 0", "APPEND h v", "SETRANGE h 0 v", `SETRANGE h 0 ""`, "GETRANGE h 0 1",
		"INCR h", "DECRBY h 5", "INCRBYFLOAT h 1", "INCRBYFLOAT h x", "SET h v GET", "SET h v NX GET"} {
		script(t, x, call+" => "+wrong)
	}
	script(t, x, "TYPE h => +hash", "MGET h => *1↵$-1", "SETNX h v => :0", "MSETNX a 1 h 2 => :0", "EXISTS a h => :1",
		"EXPIRE h 100 => :1", "TYPE h => +hash", "COPY h i => :1", "TYPE i => +hash", "RENAME i j => +OK", "TYPE j => +hash", "TYPE none => +none",
		"SET h v => +OK", "TYPE h => +string", "DEL j => :1")
}

func TestLimits(t *testing.T) {
	x := newExecutor(t, 1)
	longest, tooLong := strings.Repeat("k", MaxKey), strings.Repeat("k", MaxKey+1)
	refused := "-ERR key is longer than 65536 bytes, the limit of this server"
	script(t, x, "SET "+longest+" v => +OK", "GET "+longest+" => $1↵v", "SET "+tooLong+" v => "+refused, "GET "+tooLong+" => "+refused,
		"MSET a 1 "+tooLong+" 2 => "+refused, "RENAME "+longest+" "+tooLong+" => "+refused, "OBJECT ENCODING "+tooLong+" => "+refused, "EXISTS a => :0",
		"MSET a 1 b => -ERR wrong number of arguments for 'mset' command",
		"SETRANGE k 536870912 v => -ERR string exceeds maximum allowed size (proto-max-bulk-len)",
		"SETRANGE k 9223372036854775807 v => -ERR string exceeds maximum allowed size (proto-max-bulk-len)",
		`SETRANGE k 536870912 "" => :0`, "SETRANGE k -1 v => -ERR offset is out of range", "EXISTS k => :0")
}

// What INCRBYFLOAT computes, with the values that 80-bit arithmetic gives on amd64.
func TestLongDouble(t *testing.T) {
	for _, tt := range []struct{ a, b, want string }{
		{"0.1", "0.2", "0.3"},
		{"10.5", "0.1", "10.6"},
		{"3", "1.1", "4.1"},
		{"5.0e3", "2.0e2", "5200"},
		{"1", "1e-17", "1.00000000000000001"},
		{"1", "1e-18", "1"},
		{"-1e-30", "0", "0"},
		{"-0", "-0", "0"},
		{"0x10", "0x1p-1", "16.5"},
		{"18446744073709551615", "1", "18446744073709551616"},
		{"18446744073709551616", "1", "18446744073709551616"},
		{"1.5e4932", "-1.5e4932", "error"},
		{"1e4932", "1e4932", "not finite"},
		{"inf", "1", "not finite"},
		{"1e-4951", "1", "error"},
		{"1e-4950", "1", "1"},
		{"nan", "1", "error"},
		{"", "1", "error"},
		{" 1", "1", "error"},
		{"1_000", "1", "error"},
		{"0b1", "1", "error"},
	} {
		got := func() string {
			a, ok1 := parseLongDouble([]byte(tt.a))
			b, ok2 := parseLongDouble([]byte(tt.b))
			if !ok1 || !ok2 {
				return "error"
			}
			sum, ok := addLongDouble(a, b)
			if !ok {
				return "not finite"
			}
			return string(appendLongDouble(nil, sum))
		}()
		if got != tt.want {
			t.Errorf("%s + %s is %s, want %s", tt.a, tt.b, got, tt.want)
		}
	}
}

func BenchmarkHandlers(b *testing.B) {
	for _, call := range []string{"SET key:000000123456 " + strings.Repeat("v", 64), "GET key:000000123456", "INCR counter", "INCRBYFLOAT f 0.1"} {
		args := words(strings.Fields(call)...)
		b.Run(string(args[0]), func(b *testing.B) {
			x := newExecutor(b, 1)
			s := x.shards[0]
			x.do(words("SET", "key:000000123456", "v"))
			x.ctx.Bind(s.e.Tx(), &x.out)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%256 == 0 {
					s.b.Reset()
					x.group++
				}
				x.out.Buf = x.out.Buf[:0]
				s.e.Tx().Begin(&s.b, x.group, 1_000_000)
				x.ctx.Args = args
				Lookup(args[0]).Run(&x.ctx)
				s.e.Tx().End()
			}
		})
	}
}
