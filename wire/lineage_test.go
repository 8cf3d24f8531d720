package wire_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"github.com/understudy-kv/understudy/wire"
)

func drawGeneration(t *rapid.T) wire.Generation {
	var g wire.Generation
	copy(g[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "generation"))
	g[0] |= 1
	return g
}

// drawLineage makes a lineage of small offsets, so that epochs that begin together and empty ones are common.
func drawLineage(t *rapid.T, atLeast int) wire.Lineage {
	var l wire.Lineage
	first := uint64(0)
	for i := range rapid.IntRange(atLeast, 6).Draw(t, "epochs") {
		if i > 0 {
			first += rapid.Uint64Range(0, 4).Draw(t, "length")
		} else {
			first = rapid.Uint64Range(0, 3).Draw(t, "first")
		}
		g := drawGeneration(t)
		binary.BigEndian.PutUint16(g[14:], uint16(i)) // All differ, whatever was drawn.
		l = append(l, wire.Epoch{Generation: g, First: first})
	}
	return l
}

// TestLineageProperties holds At, Contains, Has, Until and Begin to each other.
func TestLineageProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLineage(t, 1)
		mustEqual(t, l.Validate(), nil)
		last := l[len(l)-1]
		next := last.First + rapid.Uint64Range(0, 5).Draw(t, "written")
		at := rapid.Uint64Range(0, next).Draw(t, "offset")

		p := l.At(at)
		if at < l[0].First {
			mustEqual(t, p.IsZero(), true)
			mustEqual(t, l.Contains(p, next), false)
		} else {
			mustEqual(t, p.Offset, at)
			mustEqual(t, l.Has(p.Generation), true)
			mustEqual(t, l.Contains(p, next), true)
		}

		// Reached is the same offset by the generation that made what is before it, which a lineage that shares it has.
		r := l.Reached(at)
		mustEqual(t, r.IsZero(), at < l[0].First)
		mustEqual(t, l.Contains(r, next), !r.IsZero())
		if at > l[0].First {
			mustEqual(t, r, wire.Position{Generation: l.At(at - 1).Generation, Offset: at})
			mustEqual(t, l.Until(at-1).Begin(wire.Generation{0xef}, at).Contains(r, at), true)
		}

		// A lineage contains exactly: each of its generations, from its first offset to its end, the end included.
		for i, e := range l {
			end := next
			if i+1 < len(l) {
				end = l[i+1].First
			}
			for o := range next + 3 {
				want := o >= e.First && o <= end
				mustEqual(t, l.Contains(wire.Position{Generation: e.Generation, Offset: o}, next), want)
			}
		}

		// Pitfall 2: the same offset of another history is not on this lineage, whatever the offset.
		mustEqual(t, l.Contains(wire.Position{Generation: wire.Generation{0xff}, Offset: at}, next), false)

		// Until cuts what begins later and keeps the rest: whoever reached `at` agrees with l about everything up to it.
		u := l.Until(at)
		mustEqual(t, u.Validate(), nil)
		for o := range at + 1 {
			mustEqual(t, u.At(o), l.At(o))
		}
		for _, e := range u {
			mustEqual(t, e.First <= at, true)
		}

		// Begin ends the old generation where the new one starts. Somebody who went further in the old one is diverged.
		g := wire.Generation{0xee}
		b := l.Begin(g, next)
		mustEqual(t, b.Validate(), nil)
		mustEqual(t, b.Current(), g)
		mustEqual(t, b.At(next), wire.Position{Generation: g, Offset: next})
		mustEqual(t, b.Contains(wire.Position{Generation: last.Generation, Offset: next}, next), true)
		mustEqual(t, b.Contains(wire.Position{Generation: last.Generation, Offset: next + 1}, next+10), false)
		mustEqual(t, b.Until(next).Equal(b), true)
		if next > 0 {
			mustEqual(t, b.Until(next-1).Equal(l.Until(next-1)), true)
		}
	})
}

// TestLineageIsAValue: no method changes the receiver, or shares its backing array with what it returns.
func TestLineageIsAValue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLineage(t, 2)
		before := append(wire.Lineage(nil), l...)
		last := l[len(l)-1].First
		u := l.Until(last)
		_ = append(u[:1], wire.Epoch{Generation: wire.Generation{9}, First: last})
		one := l.Begin(wire.Generation{0xe1}, last)
		two := l.Begin(wire.Generation{0xe2}, last)
		mustEqual(t, l.Equal(before), true)
		mustEqual(t, one.Current(), wire.Generation{0xe1})
		mustEqual(t, two.Current(), wire.Generation{0xe2})
	})
}

// TestLineageForgets: at most MaxLineage epochs are kept, the newest.
func TestLineageForgets(t *testing.T) {
	var l wire.Lineage
	gen := func(i int) (g wire.Generation) {
		binary.BigEndian.PutUint32(g[:], uint32(i+1))
		return g
	}
	for i := range wire.MaxLineage + 5 {
		l = l.Begin(gen(i), uint64(i))
	}
	mustEqual(t, len(l), wire.MaxLineage)
	mustEqual(t, l.Validate(), nil)
	mustEqual(t, l[0].Generation, gen(5))
	mustEqual(t, l.At(4).IsZero(), true)
	if err := append(l, wire.Epoch{Generation: gen(9999), First: 1 << 40}).Validate(); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("an overlong lineage: %v, want ErrMalformed", err)
	}
}

func TestLineageRefuses(t *testing.T) {
	for name, l := range map[string]wire.Lineage{
		"zero generation":   {{First: 1}},
		"generation twice":  {{Generation: genA}, {Generation: genB, First: 1}, {Generation: genA, First: 2}},
		"offsets that fall": {{Generation: genA, First: 2}, {Generation: genB, First: 1}},
	} {
		if _, err := wire.ParseLineage(wire.AppendLineage(nil, l)); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
	}
	for _, n := range []int{1, 23, 25, wire.PositionSize * (wire.MaxLineage + 1)} {
		if _, err := wire.ParseLineage(make([]byte, n)); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%d bytes: %v, want ErrMalformed", n, err)
		}
	}
	mustEqual(t, wire.Lineage{}.Current().IsZero(), true)
	mustEqual(t, lineageAB.Equal(lineageAB[:1]), false)
	mustEqual(t, lineageAB.Equal(wire.Lineage{lineageAB[0], {Generation: genB, First: 9}}), false)
	mustEqual(t, lineageAB.String(), "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf@0 b0b1b2b3b4b5b6b7b8b9babbbcbdbebf@1000")
}

// TestPositionText covers what people see and paste.
func TestPositionText(t *testing.T) {
	mustEqual(t, wire.Position{}.String(), "none")
	mustEqual(t, wire.Position{Offset: 7}.String(), "none")
	mustEqual(t, wire.Position{Generation: genA, Offset: 7}.String(), "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf:7")
	g, err := wire.ParseGeneration(genA.String())
	mustEqual(t, err, nil)
	mustEqual(t, g, genA)
	for _, s := range []string{"", "a0", genA.String() + "0", "x0a1a2a3a4a5a6a7a8a9aaabacadaeaf"} {
		if _, err := wire.ParseGeneration(s); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%q: %v, want ErrMalformed", s, err)
		}
	}
	for _, n := range []int{0, 23, 25} {
		if _, err := wire.ParsePosition(make([]byte, n)); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("a position of %d bytes: %v, want ErrMalformed", n, err)
		}
	}
}

// Identities and positions are read by people in JSON logs, too.
func TestIdentitiesInJSON(t *testing.T) {
	g := wire.Generation{0xab}
	for _, v := range []fmt.Stringer{g, wire.Position{Generation: g, Offset: 7}, wire.Position{}, wire.ID{1}} {
		b, err := json.Marshal(v)
		if want := strconv.Quote(v.String()); err != nil || string(b) != want {
			t.Errorf("%T in JSON is %s (%v), want %s", v, b, err, want)
		}
	}
	for _, p := range []wire.Position{{}, {Generation: g, Offset: 7}} {
		var back wire.Position
		if err := back.UnmarshalText([]byte(p.String())); err != nil || back != p {
			t.Errorf("%s read back is %s, %v", p, back, err)
		}
	}
	var id wire.ID
	if err := id.UnmarshalText([]byte(wire.ID{1, 2}.String())); err != nil || id != (wire.ID{1, 2}) {
		t.Errorf("an id read back is %s, %v", id, err)
	}
	for _, bad := range []string{"", "x", g.String(), g.String() + ":", g.String() + ":-1", g.String() + ":1x", wire.Generation{}.String() + ":1"} {
		var p wire.Position
		if err := p.UnmarshalText([]byte(bad)); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("the position %q: %v, want ErrMalformed", bad, err)
		}
		if err := id.UnmarshalText([]byte(bad[:min(len(bad), 31)])); !errors.Is(err, wire.ErrMalformed) || !id.IsZero() {
			t.Errorf("the id %q: %s, %v, want ErrMalformed", bad, id, err)
		}
	}
}
