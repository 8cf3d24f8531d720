package wire_test

import (
	"bytes"
	"errors"
	"runtime/metrics"
	"testing"

	"github.com/understudy-kv/understudy/wire"
)

// guard fails the test if f allocates more than a fixed allowance and a multiple of the bytes that it was given: a
// length that the bytes do not back must never become an allocation.
func guard(t *testing.T, given int, f func()) {
	t.Helper()
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	read := func() uint64 {
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	before := read()
	f()
	if spent, allowed := read()-before, uint64(1<<20+64*given); spent > allowed {
		t.Fatalf("%d bytes allocated for %d bytes of input, at most %d are in order", spent, given, allowed)
	}
}

// TestGuardSees: the guard of the fuzz targets notices a single allocation from a claimed length.
func TestGuardSees(t *testing.T) {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	before := sample[0].Value.Uint64()
	sink = make([]byte, 4<<20)
	metrics.Read(sample)
	if spent := sample[0].Value.Uint64() - before; spent < 4<<20 {
		t.Errorf("4 MiB were allocated, the guard sees %d bytes", spent)
	}
}

var sink []byte

// TestClaimsAreNotAllocations holds the largest claims that a header or a count can make against the guard.
func TestClaimsAreNotAllocations(t *testing.T) {
	claim := append(make([]byte, 16), 0xff, 0xff, 0xff, 0xff)
	guard(t, len(claim), func() {
		for _, parse := range payloadParsers {
			for _, b := range [][]byte{claim, append([]byte{1, 0, 9, 0}, 0xff, 0xff, 0xff, 0xff)} {
				parse(b) //nolint:errcheck // any error will do
			}
		}
		for _, h := range []wire.Header{
			{Kind: wire.KindMutations, Length: wire.MaxPayload, Count: wire.MaxPayload}, {Kind: wire.KindManifest, Length: wire.MaxControl},
		} {
			raw := seal(h, nil)
			if _, err := wire.ParseFrame(raw); !errors.Is(err, wire.ErrShort) {
				t.Fatalf("%v, want ErrShort", err)
			}
		}
	})
}

// payloadParsers are the parsers of every kind but mutations. Each returns what building the parsed value again gives,
// and the kind to build it as.
var payloadParsers = map[wire.Kind]func([]byte) ([]byte, error){
	wire.KindHello:         reparse(wire.ParseHello, wire.AppendHello),
	wire.KindResume:        reparse(func(b []byte) (wire.Welcome, error) { return wire.ParseWelcome(wire.KindResume, b) }, wire.AppendWelcome),
	wire.KindFullSync:      reparse(func(b []byte) (wire.Welcome, error) { return wire.ParseWelcome(wire.KindFullSync, b) }, wire.AppendWelcome),
	wire.KindRefuse:        reparse(func(b []byte) (wire.Refusal, error) { return wire.ParseRefusal(wire.KindRefuse, b) }, appendRefuse),
	wire.KindBye:           reparse(func(b []byte) (wire.Refusal, error) { return wire.ParseRefusal(wire.KindBye, b) }, appendBye),
	wire.KindHeartbeat:     reparse(wire.ParseHeartbeat, wire.AppendHeartbeat),
	wire.KindAck:           reparse(wire.ParseAck, wire.AppendAck),
	wire.KindManifest:      reparse(wire.ParseManifest, wire.AppendManifest),
	wire.KindFetch:         reparse(wire.ParseFetch, wire.AppendFetch),
	wire.KindChunk:         reparse(wire.ParseChunk, wire.AppendChunk),
	wire.KindSnapshotEnd:   reparse(wire.ParseSnapshotEnd, wire.AppendSnapshotEnd),
	wire.KindRewind:        reparse(func(b []byte) (wire.Welcome, error) { return wire.ParseWelcome(wire.KindRewind, b) }, wire.AppendWelcome),
	wire.KindWantKeys:      reparse(wire.ParseWantKeys, wire.AppendWantKeys),
	wire.KindValuesEnd:     reparse(wire.ParseValuesEnd, wire.AppendValuesEnd),
	wire.KindTakeover:      reparse(wire.ParseTakeover, wire.AppendTakeover),
	wire.KindTakeoverReply: reparse(wire.ParseTakeoverReply, wire.AppendTakeoverReply),
	wire.KindValues: func(b []byte) ([]byte, error) {
		f := wire.Frame{Header: wire.Header{Kind: wire.KindValues, Length: uint32(len(b))}, Payload: b}
		if err := f.CheckValues(); err != nil {
			return nil, err
		}
		return rebuildValues(f)
	},
}

func appendRefuse(dst []byte, r wire.Refusal) []byte {
	return wire.AppendRefusal(dst, wire.KindRefuse, r)
}

func appendBye(dst []byte, r wire.Refusal) []byte { return wire.AppendRefusal(dst, wire.KindBye, r) }

func reparse[T any](parse func([]byte) (T, error), build func([]byte, T) []byte) func([]byte) ([]byte, error) {
	return func(b []byte) ([]byte, error) {
		v, err := parse(b)
		if err != nil {
			return nil, err
		}
		return build(nil, v), nil
	}
}

// FuzzParseFrame: any bytes give a frame, ErrShort or a hard error, without a panic; what parses is canonical (sealed
// again it gives the same bytes) and none of its prefixes parses.
func FuzzParseFrame(f *testing.F) {
	for _, v := range vectors() {
		f.Add(v.build(f))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		guard(t, len(b), func() {
			frame, err := wire.ParseFrame(b)
			if errors.Is(err, wire.ErrShort) && len(b) >= wire.HeaderSize {
				h, herr := wire.ParseHeader(b)
				if herr != nil || h.Size() <= len(b) {
					t.Fatalf("short, although the header says %d of %d bytes (%v)", h.Size(), len(b), herr)
				}
			}
			if err != nil {
				return
			}
			if got := seal(frame.Header, frame.Payload); !bytes.Equal(got, frame.Raw) {
				t.Fatalf("sealed again: % x, want % x", got, frame.Raw)
			}
			for _, n := range []int{0, 1, wire.HeaderSize - 1, wire.HeaderSize, len(frame.Raw) - 1} {
				if _, err := wire.ParseFrame(b[:n]); !errors.Is(err, wire.ErrShort) {
					t.Fatalf("the first %d bytes: %v, want ErrShort", n, err)
				}
			}
		})
	})
}

// FuzzPayload feeds any payload to the parser of a kind: no panic, no allocation from a claim, and what parses is
// built and parsed again to the same bytes. A payload is wrapped in good checksums here, since a fuzzer guesses none.
func FuzzPayload(f *testing.F) {
	for _, v := range vectors() {
		frame, err := wire.ParseFrame(v.build(f))
		mustEqual(f, err, nil)
		f.Add(uint8(frame.Kind), frame.Payload)
	}
	f.Fuzz(func(t *testing.T, kind uint8, payload []byte) {
		parse, ok := payloadParsers[wire.Kind(kind)]
		if !ok {
			return
		}
		guard(t, len(payload), func() {
			once, err := parse(payload)
			if err != nil {
				if errors.Is(err, wire.ErrShort) {
					t.Fatalf("a payload is whole by now, so it is never short: %v", err)
				}
				return
			}
			frame, err := wire.ParseFrame(once)
			mustEqual(t, err, nil)
			twice, err := parse(frame.Payload)
			mustEqual(t, err, nil)
			if !bytes.Equal(once, twice) {
				t.Fatalf("built from what was parsed: % x, and once more: % x", once, twice)
			}
		})
	})
}

// FuzzMutations feeds any payload to the walk of a mutations frame: no panic, no allocation, and a payload that passes
// Check is rebuilt, operation by operation, to one that passes it with the same count.
func FuzzMutations(f *testing.F) {
	for _, v := range vectors() {
		if frame, err := wire.ParseFrame(v.build(f)); err == nil && frame.Kind == wire.KindMutations {
			f.Add(frame.Count, frame.Payload)
		}
	}
	f.Fuzz(func(t *testing.T, count uint32, payload []byte) {
		guard(t, len(payload), func() {
			frame := wire.Frame{Header: wire.Header{Kind: wire.KindMutations, Count: count, Length: uint32(len(payload))}, Payload: payload}
			if err := frame.Check(); err != nil {
				if errors.Is(err, wire.ErrShort) {
					t.Fatalf("a payload is whole by now, so it is never short: %v", err)
				}
				return
			}
			if count == 0 {
				return
			}
			var b wire.Builder
			b.Reset()
			for ops := frame.Ops(); ops.Next(); {
				replay(&b, ops.Op())
			}
			raw, err := b.Finish(0, 0)
			mustEqual(t, err, nil)
			again, err := wire.ParseFrame(raw)
			mustEqual(t, err, nil)
			mustEqual(t, again.Check(), nil)
			mustEqual(t, again.Count, count)
			if len(again.Payload) > len(payload) {
				t.Fatalf("rebuilt to %d bytes from %d: the builder's lengths are not the shortest", len(again.Payload), len(payload))
			}
		})
	})
}

// FuzzLineage: what parses is valid, and every offset from its first on has a position on it.
func FuzzLineage(f *testing.F) {
	f.Add(wire.AppendLineage(nil, lineageAB), uint64(1000))
	f.Fuzz(func(t *testing.T, b []byte, offset uint64) {
		guard(t, len(b), func() {
			l, err := wire.ParseLineage(b)
			if err != nil {
				return
			}
			mustEqual(t, l.Validate(), nil)
			if !bytes.Equal(wire.AppendLineage(nil, l), b) {
				t.Fatal("built from what was parsed, it differs")
			}
			if p := l.At(offset); !p.IsZero() && !l.Contains(p, offset) {
				t.Fatalf("%v is at %d and not contained", p, offset)
			}
		})
	})
}

// FuzzGeneration: the text form is canonical up to the case of its digits.
func FuzzGeneration(f *testing.F) {
	f.Add(genA.String())
	f.Fuzz(func(t *testing.T, s string) {
		if g, err := wire.ParseGeneration(s); err == nil && !bytes.EqualFold([]byte(g.String()), []byte(s)) {
			t.Fatalf("%q reads as %s", s, g)
		}
	})
}
