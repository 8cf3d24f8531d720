package server

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"github.com/understudy-kv/understudy/internal/store"
	"github.com/understudy-kv/understudy/wire"
)

func generation(b byte) (g wire.Generation) {
	g[0] = b
	return g
}

func TestTokenIsGoldenAndComesBack(t *testing.T) {
	at := []wire.Position{{Generation: generation(0xab), Offset: 0x0102}, {}, {Generation: generation(0xff), Offset: 1<<64 - 1}}
	token := string(appendToken([]byte("+"), at))
	const want = "+AQMAqwAAAAAAAAAAAAAAAAAAAAIBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA_wAAAAAAAAAAAAAAAAAAAP__________"
	if token != want {
		t.Errorf("token %s, want %s", token, want)
	}
	for _, at := range [][]wire.Position{at, make([]wire.Position, 1), slices.Repeat(at[:1], store.MaxShards)} {
		got, err := parseToken(appendToken(nil, at))
		if err != nil || !slices.Equal(got, at) {
			t.Errorf("%v came back as %v, %v", at, got, err)
		}
	}
}

func TestTokensThatAreNone(t *testing.T) {
	good := string(appendToken(nil, make([]wire.Position, 2)))
	encode := func(b ...byte) string { return base64.RawURLEncoding.EncodeToString(b) }
	for _, c := range []struct{ token, want string }{
		{"", "too short"},
		{"x", "illegal base64"},
		{good + "=", "illegal base64"},
		{good + "\n", "illegal base64"},
		{good[:8] + "\r" + good[8:], "illegal base64 data at input byte 8"},
		{good[:len(good)-4], "cut off"},
		{good + "AAAA", "cut off, or of more than one"},
		{strings.Replace(good, "A", "/", 1), "illegal base64"},
		{encode(1, 0, 0), "cut off"},
		{encode(2, 1, 0), "version 2"},
		{encode(1, 0), "too short"},
		{strings.Repeat("A", 1<<20), "too long"},
	} {
		at, err := parseToken([]byte(c.token))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40q: %v, %v, want %q", c.token, at, err, c.want)
		}
	}
}

func FuzzToken(f *testing.F) {
	f.Add(appendToken(nil, []wire.Position{{Generation: generation(1), Offset: 7}}))
	f.Fuzz(func(t *testing.T, text []byte) {
		at, err := parseToken(text)
		if err != nil {
			return
		}
		if again := appendToken(nil, at); string(again) != string(text) {
			t.Errorf("%q came back as %q", text, again)
		}
	})
}

// An offset is worth nothing without its generation (pitfall 2).
func TestJudgeToken(t *testing.T) {
	a, b, c := generation(1), generation(2), generation(3)
	l := wire.Lineage{{Generation: a, First: 0}, {Generation: b, First: 10}}
	for _, x := range []struct {
		name    string
		want    wire.Position
		lineage wire.Lineage
		applied uint64
		verdict verdict
	}{
		{"nothing is asked", wire.Position{}, l, 0, reached},
		{"nothing is asked of nothing", wire.Position{}, nil, 0, reached},
		{"no history yet", wire.Position{Generation: a, Offset: 5}, nil, 0, notYet},
		{"before it", wire.Position{Generation: b, Offset: 15}, l, 14, notYet},
		{"exactly there", wire.Position{Generation: b, Offset: 15}, l, 15, reached},
		{"past it", wire.Position{Generation: b, Offset: 15}, l, 99, reached},
		{"an older generation, past it", wire.Position{Generation: a, Offset: 5}, l, 99, reached},
		{"an older generation's end", wire.Position{Generation: a, Offset: 10}, l, 10, reached},
		{"an older generation, on the way", wire.Position{Generation: a, Offset: 5}, l, 4, notYet},
		{"behind an older generation's end", wire.Position{Generation: a, Offset: 11}, l, 99, lost},
		{"the same, not even there", wire.Position{Generation: a, Offset: 11}, l, 3, lost},
		{"before a generation's begin", wire.Position{Generation: b, Offset: 9}, l, 99, lost},
		{"a generation that is yet to come", wire.Position{Generation: c, Offset: 5}, l, 99, notYet},
		{"its begin is ahead", wire.Position{Generation: b, Offset: 10}, l, 8, notYet},
	} {
		if got := judgeToken(x.want, x.lineage, x.applied); got != x.verdict {
			t.Errorf("%s: %d, want %d", x.name, got, x.verdict)
		}
	}
}
