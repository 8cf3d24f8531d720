package commandtest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/understudy-kv/understudy/internal/resp"
)

// Generator makes random commands. It is not safe for concurrent use.
type Generator struct {
	r *rand.Rand
	// Keys are the keys that commands use. Few keys make commands meet.
	Keys []string
	// Kinds are the commands to choose from, by name; all of them at first. Delete what a test cannot compare.
	Kinds []string
}

// NewGenerator makes a generator with 16 keys, some of which share a hash tag.
func NewGenerator(seed uint64) *Generator {
	g := &Generator{r: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)), Kinds: Kinds()}
	g.Keys = []string{"", "a\r\n\x00b", "{tag}1", "{tag}2", "{}x", strings.Repeat("long", 64)}
	for i := range 10 {
		g.Keys = append(g.Keys, "key:"+strconv.Itoa(i))
	}
	return g
}

// Kinds lists the commands that a generator knows, one name for each place in its table.
func Kinds() []string {
	names := make([]string, 0, len(kinds))
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

// Next makes a command: usually a good one, sometimes one with an argument too many, too few or damaged.
func (g *Generator) Next() [][]byte {
	name := g.Kinds[g.r.IntN(len(g.Kinds))]
	args := append([]string{g.mixCase(name)}, g.arguments(name)...)
	switch g.r.IntN(60) {
	case 0:
		args = args[:1+g.r.IntN(len(args))]
	case 1:
		args = append(args, g.option("junk", "NX", "KEEPTTL", "EX", "0"))
	case 2:
		args[0] = g.option("nosuch", "GETT", strings.Repeat("x", 200), "a\r\nb")
		if g.r.IntN(2) == 0 {
			args = append(args, strings.Repeat("y", 100), "z\r\n", strings.Repeat("w", 100))
		}
	case 3:
		if len(args) > 2 {
			args[2+g.r.IntN(len(args)-2)] = g.damaged()
		}
	}
	out := make([][]byte, len(args))
	for i, a := range args {
		out[i] = []byte(a)
	}
	return out
}

// kinds is what a well-formed command of each kind has behind its name.
var kinds = []struct {
	name string
	args func(g *Generator) []string
}{
	{"set", func(g *Generator) []string { return append([]string{g.key(), g.value()}, g.setOptions()...) }},
	{"set", func(g *Generator) []string { return []string{g.key(), g.value()} }},
	{"get", oneKey},
	{"setnx", keyAndValue},
	{"setex", func(g *Generator) []string { return []string{g.key(), g.seconds(), g.value()} }},
	{"psetex", func(g *Generator) []string { return []string{g.key(), g.millis(), g.value()} }},
	{"getset", keyAndValue},
	{"getdel", oneKey},
	{"getex", func(g *Generator) []string { return append([]string{g.key()}, g.getexOptions()...) }},
	{"mset", pairs},
	{"msetnx", pairs},
	{"mget", someKeys},
	{"append", keyAndValue},
	{"strlen", oneKey},
	{"setrange", func(g *Generator) []string {
		return []string{g.key(), g.option("0", "1", "5", "100", g.integer()), g.value()}
	}},
	{"getrange", func(g *Generator) []string { return []string{g.key(), g.index(), g.index()} }},
	{"substr", func(g *Generator) []string { return []string{g.key(), g.index(), g.index()} }},
	{"incr", oneKey},
	{"decr", oneKey},
	{"incrby", func(g *Generator) []string { return []string{g.key(), g.integer()} }},
	{"decrby", func(g *Generator) []string { return []string{g.key(), g.integer()} }},
	{"incrbyfloat", func(g *Generator) []string { return []string{g.key(), g.float()} }},
	{"incrbyfloat", func(g *Generator) []string { return []string{g.key(), g.float()} }},
	{"del", someKeys},
	{"unlink", someKeys},
	{"exists", someKeys},
	{"touch", someKeys},
	{"rename", twoKeys},
	{"renamenx", twoKeys},
	{"copy", func(g *Generator) []string {
		args := twoKeys(g)
		for range g.r.IntN(3) {
			args = append(args, strings.Fields(g.option("REPLACE", "REPLACE", "DB 0", "DB 1", "DB", "DB x", "DB 2147483648"))...)
		}
		return args
	}},
	{"expire", func(g *Generator) []string { return append([]string{g.key(), g.seconds()}, g.conditions()...) }},
	{"pexpire", func(g *Generator) []string { return append([]string{g.key(), g.millis()}, g.conditions()...) }},
	{"expireat", func(g *Generator) []string { return append([]string{g.key(), g.atSeconds()}, g.conditions()...) }},
	{"pexpireat", func(g *Generator) []string { return append([]string{g.key(), g.atMillis()}, g.conditions()...) }},
	{"ttl", oneKey},
	{"pttl", oneKey},
	{"expiretime", oneKey},
	{"pexpiretime", oneKey},
	{"persist", oneKey},
	{"type", oneKey},
	{"object", func(g *Generator) []string { return []string{g.option("freq", "FREQ", "nosuch"), g.key()} }},
}

func oneKey(g *Generator) []string      { return []string{g.key()} }
func twoKeys(g *Generator) []string     { return []string{g.key(), g.key()} }
func keyAndValue(g *Generator) []string { return []string{g.key(), g.value()} }

func someKeys(g *Generator) (keys []string) {
	for range 1 + g.r.IntN(5) {
		keys = append(keys, g.key())
	}
	return keys
}

func pairs(g *Generator) (args []string) {
	for range 1 + g.r.IntN(4) {
		args = append(args, g.key(), g.value())
	}
	return args
}

func (g *Generator) arguments(name string) []string {
	at := g.r.IntN(len(kinds))
	for kinds[at].name != name {
		at = (at + 1) % len(kinds)
	}
	return kinds[at].args(g)
}

func (g *Generator) key() string { return g.Keys[g.r.IntN(len(g.Keys))] }

func (g *Generator) option(choices ...string) string { return choices[g.r.IntN(len(choices))] }

// mixCase writes a name in lower, upper or mixed case.
func (g *Generator) mixCase(name string) string {
	switch g.r.IntN(4) {
	case 0:
		return strings.ToUpper(name)
	case 1:
		return strings.ToUpper(name[:1]) + name[1:]
	}
	return name
}

func (g *Generator) value() string {
	switch g.r.IntN(10) {
	case 0, 1, 2:
		return g.integer()
	case 3, 4:
		return g.float()
	case 5:
		return g.damaged()
	case 6:
		return strings.Repeat("v", g.r.IntN(300))
	default:
		b := make([]byte, g.r.IntN(40))
		for i := range b {
			b[i] = byte(g.r.UintN(256))
		}
		return string(b)
	}
}

// damaged is a word that is no number, nor an option: in the place of a time it must not make a deadline that passes
// while the test runs.
func (g *Generator) damaged() string {
	return g.option("", " 1", "1 ", "+1", "01", "-0", "nan", "abc", "0x10", "1e", ".", "-", "a\r\nb\x00c")
}

func (g *Generator) integer() string {
	switch g.r.IntN(8) {
	case 0:
		return g.option("9223372036854775807", "-9223372036854775808", "9223372036854775808", "-9223372036854775809", "4611686018427387904", "99999999999999999999")
	case 1:
		return g.option("0", "1", "-1", "abc", "1.5", "", " 1", "00")
	case 2:
		return strconv.FormatInt(int64(g.r.Uint64()), 10)
	}
	return strconv.Itoa(g.r.IntN(2000) - 1000)
}

// float makes numbers that INCRBYFLOAT may or may not read.
func (g *Generator) float() string {
	digits := func(n int) string {
		b := make([]byte, 1+g.r.IntN(n))
		for i := range b {
			b[i] = byte('0' + g.r.IntN(10))
		}
		return string(b)
	}
	sign := g.option("", "", "-", "+")
	switch g.r.IntN(12) {
	case 0:
		return g.option("inf", "-inf", "Infinity", "nan", "1e4932", "1e4931", "-1e4932", "1e5000", "1e-4950", "1e-4940", "1e99999999999999999999", "0e99999", "1e", "e1", ".5", "5.", ".", "1.5.", "1_0", "1e+5", "1e-5", "1 ")
	case 1:
		return sign + g.option("0x10", "0X1.8p3", "0x.8", "0x1p-3", "0x", "0x1p", "0xfffffffffffffffff", "0x1p16383", "0x1p16384", "0b1", "0o7", "0x1.ffffffffffffffffffp0")
	case 2, 3:
		return sign + digits(25) + "." + digits(25) + "e" + g.option("", "-", "+") + strconv.Itoa(g.r.IntN(40))
	case 4:
		return sign + "0." + strings.Repeat("0", g.r.IntN(20)) + digits(20)
	case 5, 6:
		return sign + digits(22)
	}
	return sign + digits(6) + "." + digits(6)
}

func (g *Generator) index() string {
	if g.r.IntN(8) == 0 {
		return g.integer()
	}
	return strconv.Itoa(g.r.IntN(60) - 30)
}

// Relative times lie between some hours and two years ahead, far from each other.
func (g *Generator) seconds() string {
	if g.r.IntN(6) == 0 {
		return g.option("0", "-1", "-100000", "9223372036854775807", "9223372036854775", "9223372036854776", "-9223372036854775808", "abc", "1.5", "")
	}
	return strconv.Itoa(20_000 + g.r.IntN(60_000_000))
}

func (g *Generator) millis() string {
	if g.r.IntN(6) == 0 {
		return g.option("0", "-1", "-100000", "9223372036854775807", "9223372036854775000", "-9223372036854775808", "abc", "1.5", "")
	}
	return strconv.Itoa(20_000_000 + g.r.IntN(60_000_000_000))
}

// Absolute times lie in the past or after the year 2100, where Same wants them exact.
const absoluteFrom = 4_102_444_800 // 2100-01-01, in seconds

func (g *Generator) atSeconds() string {
	if g.r.IntN(6) == 0 {
		return g.option("0", "1", "-1", "1000000000", "9223372036854775807", "9223372036854775", "9223372036854776", "-9223372036854775808", "abc", "")
	}
	return strconv.Itoa(absoluteFrom + g.r.IntN(1_000_000_000))
}

func (g *Generator) atMillis() string {
	if g.r.IntN(6) == 0 {
		return g.option("0", "1", "-1", "1000000000000", "9223372036854775807", "-9223372036854775808", "abc", "")
	}
	return strconv.Itoa(absoluteFrom*1000 + g.r.IntN(1_000_000_000_000))
}

func (g *Generator) expiry() []string {
	switch g.r.IntN(4) {
	case 0:
		return []string{g.mixCase("ex"), g.seconds()}
	case 1:
		return []string{g.mixCase("px"), g.millis()}
	case 2:
		return []string{g.mixCase("exat"), g.atSeconds()}
	}
	return []string{g.mixCase("pxat"), g.atMillis()}
}

func (g *Generator) setOptions() (options []string) {
	for range g.r.IntN(4) {
		switch g.r.IntN(6) {
		case 0:
			options = append(options, g.mixCase("nx"))
		case 1:
			options = append(options, g.mixCase("xx"))
		case 2:
			options = append(options, g.mixCase("get"))
		case 3:
			options = append(options, g.mixCase("keepttl"))
		default:
			options = append(options, g.expiry()...)
		}
	}
	return options
}

func (g *Generator) getexOptions() (options []string) {
	for range []int{0, 1, 1, 1, 2}[g.r.IntN(5)] {
		if g.r.IntN(3) == 0 {
			options = append(options, g.option("PERSIST", "persist", "KEEPTTL"))
		} else {
			options = append(options, g.expiry()...)
		}
	}
	return options
}

func (g *Generator) conditions() (options []string) {
	for range []int{0, 0, 1, 1, 2}[g.r.IntN(5)] {
		options = append(options, g.mixCase(g.option("nx", "xx", "gt", "lt", "gt", "lt", "junk")))
	}
	return options
}

// Same reports whether two replies to the command are equal, byte for byte; for TTL, PTTL, EXPIRETIME and PEXPIRETIME
// of a deadline that was given as a time to live, equal up to some seconds.
func Same(args [][]byte, a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	unit := map[string]int64{"ttl": 1, "pttl": 1000, "expiretime": 1, "pexpiretime": 1000}[strings.ToLower(string(args[0]))]
	absolute := len(args[0]) > len("pttl")
	x, ok1 := integerReply(a)
	y, ok2 := integerReply(b)
	if unit == 0 || !ok1 || !ok2 || x < 0 || y < 0 {
		return false
	}
	if absolute && x >= absoluteFrom*unit {
		return false
	}
	return max(x, y)-min(x, y) <= 5*unit
}

func integerReply(b []byte) (int64, bool) {
	if len(b) < 4 || b[0] != ':' {
		return 0, false
	}
	return resp.ParseInt(b[1 : len(b)-2])
}

// Format writes a command so that a person can read and repeat it.
func Format(args [][]byte) string {
	var s strings.Builder
	for i, a := range args {
		if i > 0 {
			s.WriteByte(' ')
		}
		fmt.Fprintf(&s, "%q", a)
	}
	return s.String()
}
