package wire_test

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/understudy-kv/understudy/wire"
)

func drawOps(t *rapid.T) []wire.Op {
	field := rapid.SliceOfN(rapid.Byte(), 0, 300)
	var ops []wire.Op
	for range rapid.IntRange(1, 5).Draw(t, "mutations") {
		for range rapid.IntRange(0, 4).Draw(t, "operations") {
			op := wire.Op{Kind: wire.OpKind(rapid.IntRange(1, 3).Draw(t, "kind")), Key: field.Draw(t, "key")}
			switch op.Kind {
			case wire.OpPut:
				op.Value = field.Draw(t, "value")
			case wire.OpDeleteRange:
				op.Value = append(append([]byte(nil), op.Key...), field.Draw(t, "end")...)
				op.Value = append(op.Value, 0)
			}
			ops = append(ops, op)
		}
		ops = append(ops, wire.Op{Kind: wire.OpEnd})
	}
	return ops
}

func sameOp(a, b wire.Op) bool {
	return a.Kind == b.Kind && bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value)
}

// TestMutationsRoundTrip: what is built is what is parsed, also with marks taken and rolled back in between, and as
// one of several frames of a batch.
func TestMutationsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b wire.Builder
		var batch wire.Batch
		var all []wire.Op
		next := rapid.Uint64Range(0, 1<<62).Draw(t, "first")
		batch.First = next
		for range rapid.IntRange(1, 3).Draw(t, "frames") {
			b.Reset()
			ops := drawOps(t)
			for _, op := range ops {
				m := b.Mark()
				mustEqual(t, b.Since(m), false)
				if rapid.Bool().Draw(t, "waver") {
					b.Put([]byte("never"), []byte("was"))
					b.End()
					mustEqual(t, b.Since(m), true)
					b.Rollback(m)
				}
				if op.Kind == wire.OpPut {
					cut := rapid.IntRange(0, len(op.Value)).Draw(t, "cut")
					from, to := b.PutParts(op.Key, op.Value[:cut], op.Value[cut:])
					mustEqual(t, bytes.Equal(b.Bytes(from, to), op.Value), true)
					continue
				}
				replay(&b, op)
			}
			commit := rapid.Int64().Draw(t, "commit")
			count, size := b.Count(), b.Len()
			raw, err := b.Finish(next, commit)
			mustEqual(t, err, nil)
			f, err := wire.ParseFrame(raw)
			mustEqual(t, err, nil)
			mustEqual(t, f.Check(), nil)
			mustEqual(t, f.Header, wire.Header{Kind: wire.KindMutations, Length: uint32(size), First: next, Commit: commit, Count: count})
			mustEqual(t, f.Size(), len(raw))
			next = f.Next()
			batch.Frames = append(batch.Frames, raw...)
			all = append(all, ops...)

			var mutation uint32
			walk, i := f.Ops(), 0
			for walk.Next() {
				if !sameOp(walk.Op(), ops[i]) {
					t.Fatalf("operation %d is %v, want %v", i, walk.Op(), ops[i])
				}
				mustEqual(t, walk.Mutation(), mutation)
				if ops[i].Kind == wire.OpEnd {
					mutation++
				}
				i++
			}
			mustEqual(t, i, len(ops))
			mustEqual(t, walk.Next(), false) // for good, and counting nothing more
			mustEqual(t, walk.Mutation(), count)
			everyPrefixIsShort(t, raw)
		}
		i := 0
		mustEqual(t, batch.Each(func(op wire.Op) error {
			if !sameOp(op, all[i]) {
				t.Fatalf("operation %d of the batch is %v, want %v", i, op, all[i])
			}
			i++
			return nil
		}), nil)
		mustEqual(t, i, len(all))
	})
}

func TestBuilderRefuses(t *testing.T) {
	var b wire.Builder
	finish := func() error {
		_, err := b.Finish(1, 1)
		return err
	}
	b.Reset()
	if err := finish(); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("no mutation: %v, want ErrMalformed", err)
	}
	// A value that ends in the byte of an end does not pass for one.
	b.Reset()
	b.Put([]byte("a"), nil)
	b.End()
	b.Put([]byte("a"), []byte{0})
	if err := finish(); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("a mutation without an end: %v, want ErrMalformed", err)
	}
	b.End()
	mustEqual(t, finish(), nil)
	if err := finish(); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("finished twice: %v, want ErrMalformed", err)
	}
	mustEqual(t, b.Room(10, 10), true)
	mustEqual(t, b.Room(10, wire.MaxPayload), false)
	b.Shrink(1)
	mustEqual(t, b.Len(), 0)
	mustEqual(t, b.Count(), 0)
}

func TestBuilderLimit(t *testing.T) {
	if _, err := wire.NewOversizedBuilder().Finish(0, 0); !errors.Is(err, wire.ErrTooLarge) {
		t.Errorf("%v, want ErrTooLarge", err)
	}
}

func TestCheckRefuses(t *testing.T) {
	frame := func(count uint32, payload ...byte) []byte {
		return seal(wire.Header{Kind: wire.KindMutations, Length: uint32(len(payload)), Count: count}, payload)
	}
	for _, c := range []struct {
		name string
		raw  []byte
		want error
	}{
		{"an empty mutation", frame(1, 0), nil},
		{"a mutation without an end", frame(1, 2, 1, 'k'), wire.ErrMalformed},
		{"fewer than the header says", frame(2, 2, 1, 'k', 0), wire.ErrMalformed},
		{"more than the header says", frame(1, 0, 0), wire.ErrMalformed},
		{"an end, then more", frame(1, 0, 2, 1, 'k'), wire.ErrMalformed},
		{"a key past the payload", frame(1, 2, 9, 'k', 0), wire.ErrMalformed},
		{"a value past the payload", frame(1, 1, 1, 'k', 0x7f, 0), wire.ErrMalformed},
		{"a length without an end", frame(1, 2, 0xff, 0xff), wire.ErrMalformed},
		{"a length of 2^64-1", frame(1, 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0), wire.ErrMalformed},
		{"a length of eleven bytes", frame(1, 2, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0, 0), wire.ErrMalformed},
		{"an operation of the future", frame(1, 4, 0), wire.ErrUnknown},
		{"an inverted range", frame(1, 3, 1, 'b', 1, 'a', 0), wire.ErrMalformed},
		{"an empty range", frame(1, 3, 1, 'a', 1, 'a', 0), wire.ErrMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := wire.ParseFrame(c.raw)
			mustEqual(t, err, nil)
			if err := f.Check(); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// TestBatchEach: damage inside a batch and the callback's own error both end the walk.
func TestBatchEach(t *testing.T) {
	good := seal(wire.Header{Kind: wire.KindMutations, Length: 1, Count: 1}, []byte{0})
	bad := seal(wire.Header{Kind: wire.KindMutations, Length: 1, Count: 1}, []byte{9})
	nothing := func(wire.Op) error { return nil }
	if err := (wire.Batch{Frames: append(append([]byte(nil), good...), bad...)}).Each(nothing); !errors.Is(err, wire.ErrUnknown) {
		t.Errorf("an unknown operation: %v", err)
	}
	if err := (wire.Batch{Frames: append(append([]byte(nil), good...), good[:20]...)}).Each(nothing); !errors.Is(err, wire.ErrShort) {
		t.Errorf("half a frame: %v", err)
	}
	stop := errors.New("stop")
	if err := (wire.Batch{Frames: good}).Each(func(wire.Op) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the callback's error: %v", err)
	}
}
