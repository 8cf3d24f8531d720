package wire_test

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/understudy-kv/understudy/wire"
)

func TestRewindRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := wire.WantKeys{Last: rapid.Bool().Draw(t, "last")}
		for range rapid.IntRange(0, 5).Draw(t, "keys") {
			w.Keys = append(w.Keys, rapid.SliceOf(rapid.Byte()).Draw(t, "key"))
		}
		got, err := wire.ParseWantKeys(payload(t, wire.AppendWantKeys(nil, w), wire.KindWantKeys))
		mustEqual(t, err, nil)
		mustEqual(t, len(got.Keys), len(w.Keys))
		mustEqual(t, got.Last, w.Last)
		for i := range w.Keys {
			mustEqual(t, bytes.Equal(got.Keys[i], w.Keys[i]), true)
		}

		p := wire.Position{Generation: drawGeneration(t), Offset: rapid.Uint64().Draw(t, "offset")}
		at, err := wire.ParseValuesEnd(append(payload(t, wire.AppendValuesEnd(nil, p), wire.KindValuesEnd), 1, 2, 3))
		mustEqual(t, err, nil)
		mustEqual(t, at, p)

		r := wire.TakeoverReply{
			ID: drawID(t, "id"), Text: rapid.String().Draw(t, "text"),
			Outcome: rapid.SampledFrom([]wire.Outcome{wire.OutcomeDone, wire.OutcomeRefused, wire.OutcomeVoid, wire.OutcomeReady}).Draw(t, "outcome"),
		}
		o := wire.Takeover{ID: r.ID, Cancel: w.Last, Probe: !w.Last, Node: drawID(t, "node"), Cluster: r.Text}
		for range rapid.IntRange(0, 5).Draw(t, "shards") {
			r.Positions = append(r.Positions, drawPosition(t))
		}
		o.Positions = r.Positions
		gotReply, err := wire.ParseTakeoverReply(payload(t, wire.AppendTakeoverReply(nil, r), wire.KindTakeoverReply))
		mustEqual(t, err, nil)
		mustEqual(t, gotReply, r)
		gotTakeover, err := wire.ParseTakeover(payload(t, wire.AppendTakeover(nil, o), wire.KindTakeover))
		mustEqual(t, err, nil)
		mustEqual(t, gotTakeover, o)
	})
}

func TestRewindRefuses(t *testing.T) {
	refused := func(name string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	for name, b := range map[string][]byte{
		"an empty want-keys": {}, "a flag that is neither": {2}, "a cut length": {1, 1, 0, 0}, "a cut key": {1, 2, 0, 0, 0, 'k'},
		"a key of 4 GiB": {0, 0xff, 0xff, 0xff, 0xff, 'k'},
	} {
		_, err := wire.ParseWantKeys(b)
		refused(name, err, wire.ErrMalformed)
	}
	_, err := wire.ParseValuesEnd(make([]byte, 23))
	refused("a short values-end", err, wire.ErrMalformed)
	_, err = wire.ParseValuesEnd(make([]byte, 24))
	refused("a values-end without a position", err, wire.ErrMalformed)

	reply := func(version byte, outcome string) error {
		_, err := wire.ParseTakeoverReply(append([]byte{version, 0}, field(wire.FieldOutcome, []byte(outcome)...)...))
		return err
	}
	mustEqual(t, reply(1, "done"), nil)
	refused("a reply of another version", reply(2, "done"), wire.ErrUnknown)
	refused("an outcome of a later version", reply(1, "perhaps"), wire.ErrUnknown)
	refused("no outcome", reply(1, ""), wire.ErrUnknown)
	_, err = wire.ParseTakeover([]byte{2, 0})
	refused("a takeover of another version", err, wire.ErrUnknown)
	_, err = wire.ParseTakeover(append([]byte{1, 0}, field(wire.FieldPositions, make([]byte, 25)...)...))
	refused("a position and a byte", err, wire.ErrMalformed)
	_, err = wire.ParseTakeover(append([]byte{1, 0}, field(wire.FieldCancel)...))
	refused("a cancel of no byte", err, wire.ErrMalformed)
}

func TestValuesRefuse(t *testing.T) {
	check := func(payload ...byte) error {
		return wire.Frame{Header: wire.Header{Kind: wire.KindValues, Length: uint32(len(payload))}, Payload: payload}.CheckValues()
	}
	mustEqual(t, check(byte(wire.OpDelete), 1, 'k'), nil)
	for name, p := range map[string][]byte{
		"nothing": {}, "an end": {byte(wire.OpDelete), 1, 'k', byte(wire.OpEnd)}, "a cut put": {byte(wire.OpPut), 1, 'k', 9},
		"a range": {byte(wire.OpDeleteRange), 1, 'a', 1, 'b'},
	} {
		if err := check(p...); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
	}
	var b wire.Builder
	finish := func(name string, want error) {
		t.Helper()
		if _, err := b.FinishValues(); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	b.Reset()
	finish("no value", wire.ErrMalformed)
	b.Put([]byte("k"), nil)
	b.End()
	finish("a mutation", wire.ErrMalformed)
	b.Reset()
	b.Put([]byte("k"), nil)
	finish("one value", nil)
	finish("finished twice", wire.ErrMalformed)
	b.Reset()
	b.Delete([]byte("k"))
	finish("used again", nil)
	if _, err := wire.NewOversizedBuilder().FinishValues(); !errors.Is(err, wire.ErrTooLarge) {
		t.Errorf("%v, want ErrTooLarge", err)
	}
}

// TestValuesLimit: a values frame may be as large as a mutations frame, since one value may (pitfall 29).
func TestValuesLimit(t *testing.T) {
	for _, h := range []wire.Header{{Kind: wire.KindValues, Length: wire.MaxPayload}, {Kind: wire.KindWantKeys, Length: wire.MaxControl}} {
		if _, err := wire.ParseFrame(seal(h, nil)); !errors.Is(err, wire.ErrShort) {
			t.Errorf("a %s of %d bytes: %v, want ErrShort", h.Kind, h.Length, err)
		}
		h.Length++
		if _, err := wire.ParseFrame(seal(h, nil)); !errors.Is(err, wire.ErrTooLarge) {
			t.Errorf("a %s of %d bytes: %v, want ErrTooLarge", h.Kind, h.Length, err)
		}
	}
}
