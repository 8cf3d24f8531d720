package wire

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Generation is the random 128-bit identity of one unbroken history. Generations are compared for equality only:
// they have no order, so a counter that two nodes advanced alike can never alias two histories.
type Generation [16]byte

// IsZero reports whether g is the zero value, which no history ever has.
func (g Generation) IsZero() bool { return g == Generation{} }

// String gives all 32 hex digits.
func (g Generation) String() string { return hex.EncodeToString(g[:]) }

// MarshalText is [Generation.String], for JSON.
func (g Generation) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// ParseGeneration reads what [Generation.String] wrote.
func ParseGeneration(s string) (Generation, error) {
	var g Generation
	if len(s) != 2*len(g) {
		return g, fmt.Errorf("%w: generation %q is not 32 hex digits", ErrMalformed, s)
	}
	if _, err := hex.Decode(g[:], []byte(s)); err != nil {
		return Generation{}, fmt.Errorf("%w: generation %q is not 32 hex digits", ErrMalformed, s)
	}
	return g, nil
}

// Position is a point in a history: the generation, and the offset of the next mutation. The zero Position means
// "no history at all", which is not the same as offset 0 of some generation.
type Position struct {
	Generation Generation
	Offset     uint64
}

// IsZero reports whether p names no history.
func (p Position) IsZero() bool { return p.Generation.IsZero() }

// String gives "generation:offset", or "none".
func (p Position) String() string {
	if p.IsZero() {
		return "none"
	}
	return fmt.Sprintf("%s:%d", p.Generation, p.Offset)
}

// MarshalText is [Position.String], for JSON.
func (p Position) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText wrote. "none" is the zero Position.
func (p *Position) UnmarshalText(b []byte) error {
	*p = Position{}
	if string(b) == "none" {
		return nil
	}
	generation, offset, _ := strings.Cut(string(b), ":")
	g, err := ParseGeneration(generation)
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(offset, 10, 64)
	if err != nil || g.IsZero() {
		return fmt.Errorf("%w: %q is not a position, generation:offset", ErrMalformed, b)
	}
	*p = Position{Generation: g, Offset: n}
	return nil
}

// PositionSize is the encoded size of a position: generation:16 offset:8.
const PositionSize = 24

// AppendPosition appends generation:16 offset:8.
func AppendPosition(dst []byte, p Position) []byte {
	dst = append(dst, p.Generation[:]...)
	return binary.LittleEndian.AppendUint64(dst, p.Offset)
}

// ParsePosition reads exactly [PositionSize] bytes.
func ParsePosition(b []byte) (Position, error) {
	var p Position
	if len(b) != PositionSize {
		return p, fmt.Errorf("%w: a position of %d bytes, want %d", ErrMalformed, len(b), PositionSize)
	}
	copy(p.Generation[:], b)
	p.Offset = binary.LittleEndian.Uint64(b[16:])
	return p, nil
}

// Epoch is one generation's stretch of a lineage: it begins at offset First and ends where the next one begins.
type Epoch struct {
	Generation Generation
	First      uint64
}

// Lineage is the list of generations a history went through, oldest first. A valid lineage has strictly no zero
// generation, no generation twice, and first offsets that never fall. Lineages are values: the methods below never
// change the receiver's backing array.
type Lineage []Epoch

// MaxLineage is the largest number of epochs that is kept and sent: the oldest are forgotten first, which only
// costs a full sync to a replica that slept through that many promotions.
const MaxLineage = 1024

// Current returns the newest generation, or the zero one for an empty lineage.
func (l Lineage) Current() Generation {
	if len(l) == 0 {
		return Generation{}
	}
	return l[len(l)-1].Generation
}

// At returns the position that offset has on this lineage: its generation is the newest one that begins at or
// before offset. It returns the zero Position where offset lies before the lineage.
func (l Lineage) At(offset uint64) Position {
	for i := len(l) - 1; i >= 0; i-- {
		if l[i].First <= offset {
			return Position{Generation: l[i].Generation, Offset: offset}
		}
	}
	return Position{}
}

// Reached returns offset as [Lineage.At] does, but named by the generation of the mutation before it, so by one that has a
// mutation there. Every lineage on which these mutations lie has that generation, and Contains the position; the one that
// merely begins at offset may go again, if nothing was made in it. At the lineage's own beginning it is its first generation.
func (l Lineage) Reached(offset uint64) Position {
	for i := len(l) - 1; i >= 0; i-- {
		if l[i].First < offset || i == 0 && l[i].First == offset {
			return Position{Generation: l[i].Generation, Offset: offset}
		}
	}
	return Position{}
}

// Contains reports whether p lies on this lineage when its newest generation has reached offset next: p's
// generation is one of the lineage's and p's offset lies within that generation, its end included.
func (l Lineage) Contains(p Position, next uint64) bool {
	for i, e := range l {
		if e.Generation != p.Generation {
			continue
		}
		end := next
		if i+1 < len(l) {
			end = l[i+1].First
		}
		return p.Offset >= e.First && p.Offset <= end
	}
	return false
}

// Has reports whether the generation is one of the lineage's.
func (l Lineage) Has(g Generation) bool {
	for _, e := range l {
		if e.Generation == g {
			return true
		}
	}
	return false
}

// End is where a generation of the lineage ends: where the next one begins, or, for the newest, the largest offset. It is 0
// for one that is not on it.
func (l Lineage) End(g Generation) uint64 {
	for i, e := range l {
		switch {
		case e.Generation != g:
		case i+1 < len(l):
			return l[i+1].First
		default:
			return math.MaxUint64
		}
	}
	return 0
}

// Until returns the lineage of somebody who has reached offset and no more: epochs that begin after it are left out.
func (l Lineage) Until(offset uint64) Lineage {
	n := len(l)
	for n > 0 && l[n-1].First > offset {
		n--
	}
	return append(Lineage(nil), l[:n]...)
}

// Begin returns the lineage with a new generation that begins at offset first, which must not lie before the
// newest epoch's. At most [MaxLineage] epochs are kept.
func (l Lineage) Begin(g Generation, first uint64) Lineage {
	next := append(l.Until(first), Epoch{Generation: g, First: first})
	if n := len(next) - MaxLineage; n > 0 {
		next = append(Lineage(nil), next[n:]...)
	}
	return next
}

// Equal reports whether both list the same epochs.
func (l Lineage) Equal(m Lineage) bool {
	if len(l) != len(m) {
		return false
	}
	for i := range l {
		if l[i] != m[i] {
			return false
		}
	}
	return true
}

// Validate reports the first way in which l is not a lineage.
func (l Lineage) Validate() error {
	if len(l) > MaxLineage {
		return fmt.Errorf("%w: a lineage of %d generations, at most %d", ErrMalformed, len(l), MaxLineage)
	}
	seen := make(map[Generation]struct{}, len(l))
	for i, e := range l {
		if e.Generation.IsZero() {
			return fmt.Errorf("%w: lineage entry %d has the zero generation", ErrMalformed, i)
		}
		if _, twice := seen[e.Generation]; twice {
			return fmt.Errorf("%w: lineage has generation %s twice", ErrMalformed, e.Generation)
		}
		seen[e.Generation] = struct{}{}
		if i > 0 && e.First < l[i-1].First {
			return fmt.Errorf("%w: lineage entry %d begins at %d, before its predecessor's %d", ErrMalformed, i, e.First, l[i-1].First)
		}
	}
	return nil
}

// String gives "generation@first" entries, oldest first.
func (l Lineage) String() string {
	var s strings.Builder
	for i, e := range l {
		if i > 0 {
			s.WriteByte(' ')
		}
		fmt.Fprintf(&s, "%s@%d", e.Generation, e.First)
	}
	return s.String()
}

// AppendLineage appends generation:16 first:8 for each epoch.
func AppendLineage(dst []byte, l Lineage) []byte {
	for _, e := range l {
		dst = append(dst, e.Generation[:]...)
		dst = binary.LittleEndian.AppendUint64(dst, e.First)
	}
	return dst
}

// ParseLineage reads what [AppendLineage] wrote and validates it.
func ParseLineage(b []byte) (Lineage, error) {
	if len(b)%PositionSize != 0 {
		return nil, fmt.Errorf("%w: a lineage of %d bytes is not a multiple of %d", ErrMalformed, len(b), PositionSize)
	}
	if len(b)/PositionSize > MaxLineage {
		return nil, fmt.Errorf("%w: a lineage of %d generations, at most %d", ErrMalformed, len(b)/PositionSize, MaxLineage)
	}
	l := make(Lineage, 0, len(b)/PositionSize)
	for ; len(b) > 0; b = b[PositionSize:] {
		var e Epoch
		copy(e.Generation[:], b)
		e.First = binary.LittleEndian.Uint64(b[16:])
		l = append(l, e)
	}
	if err := l.Validate(); err != nil {
		return nil, err
	}
	return l, nil
}
