package engine_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/wire"
)

// built is an engine at offset 1 with values of some sizes, one of them longer than a run.
func built(t *testing.T, fs vfs.FS) (*engine.Engine, [][]byte) {
	t.Helper()
	e, err := engine.Open("/e", engine.Options{FS: fs, BeforeFlush: func() error { return nil }, OnError: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	var b wire.Builder
	b.Reset()
	var keys [][]byte
	for i, n := range []int{0, 1, 100_000, 200_000, 5 << 20, 3} {
		keys = append(keys, engine.AppendDataKey(nil, fmt.Append(nil, "k", i)))
		b.Put(keys[i], bytes.Repeat([]byte{byte('a' + i)}, n))
	}
	b.End()
	raw, err := b.Finish(0, 1)
	if err == nil {
		err = e.Apply(wire.Batch{Frames: raw, At: wire.Position{Generation: wire.Generation{1}, Offset: 1}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return e, keys
}

// Values are told in the order asked for, those that are missing too, as of one position, whatever is written meanwhile.
func TestValues(t *testing.T) {
	e, keys := built(t, vfs.NewMem())
	ask := [][]byte{keys[4], engine.AppendDataKey(nil, []byte("missing")), keys[0], keys[5], keys[0], keys[2], keys[3], keys[1]}
	n := 0
	at, err := e.Values(ask, func(key, value []byte, found bool) error {
		if !bytes.Equal(key, ask[n]) || found != (n != 1) {
			t.Fatalf("number %d: %x, found: %v", n, key, found)
		}
		if want := []int{5 << 20, 0, 0, 3, 0, 100_000, 200_000, 1}[n]; len(value) != want {
			t.Fatalf("number %d has %d bytes, want %d", n, len(value), want)
		}
		if n == 0 {
			var b wire.Builder
			b.Reset()
			b.Put(keys[1], []byte("later"))
			b.End()
			raw, err := b.Finish(1, 1)
			if err == nil {
				err = e.Apply(wire.Batch{Frames: raw, First: 1, At: wire.Position{Generation: wire.Generation{1}, Offset: 2}})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		n++
		return nil
	})
	if err != nil || n != len(ask) || at.Offset != 1 {
		t.Fatalf("%d values at %s, %v", n, at, err)
	}
	enough := errors.New("enough")
	if _, err := e.Values(ask, func([]byte, []byte, bool) error { return enough }); err != enough {
		t.Errorf("the callback's error came back as %v", err)
	}
	if _, err := e.Values([][]byte{[]byte("\x00position")}, nil); !errors.Is(err, engine.ErrKey) {
		t.Errorf("a key that belongs to nobody gave %v", err)
	}
	if at, err := e.Values(nil, nil); err != nil || at.Offset != 2 {
		t.Errorf("without keys: %s, %v", at, err)
	}
}

// A rewind is durable when it returns, takes the position back, and puts values of any size, over several batches.
func TestRewind(t *testing.T) {
	fs := vfs.NewCrashableMem()
	e, keys := built(t, fs)
	if _, err := e.Checkpoint("/c"); err != nil {
		t.Fatal(err)
	}
	o := engine.Options{FS: fs, BeforeFlush: func() error { return nil }, OnError: func(err error) { t.Error(err) }}
	c, err := engine.Open("/c", o)
	if err != nil {
		t.Fatal(err)
	}
	frame := func(build func(b *wire.Builder)) wire.Frame {
		var b wire.Builder
		b.Reset()
		build(&b)
		raw, err := b.FinishValues()
		if err != nil {
			t.Fatal(err)
		}
		f, err := wire.ParseFrame(raw)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	frames := []wire.Frame{
		frame(func(b *wire.Builder) { b.Put(keys[0], make([]byte, 6<<20)) }),
		frame(func(b *wire.Builder) { b.Delete(keys[4]); b.Put(keys[1], []byte("back")) }),
	}
	at := wire.Position{Generation: wire.Generation{2}, Offset: 0}
	if err := c.Rewind(at, func(f func(wire.Frame) error) error { return errors.Join(f(frames[0]), f(frames[1])) }); err != nil {
		t.Fatal(err)
	}
	clone := fs.CrashClone(vfs.CrashCloneCfg{})
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	o.FS = clone
	again, err := engine.Open("/c", o)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	told, err := again.Values(keys, func(key, value []byte, found bool) error {
		if got[string(key)] = len(value); !found {
			got[string(key)] = -1
		}
		return nil
	})
	if err != nil || told != at {
		t.Fatalf("after a power loss it is at %s, %v", told, err)
	}
	for i, want := range []int{6 << 20, 4, 100_000, 200_000, -1, 3} {
		if n := got[string(keys[i])]; n != want {
			t.Errorf("k%d has %d bytes, want %d", i, n, want)
		}
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if now, _ := e.Position(); now.Offset != 1 {
		t.Errorf("the engine that the checkpoint is of went to %s", now)
	}
	// What is no value is refused.
	for _, bad := range []wire.Frame{{}, frame(func(b *wire.Builder) { b.Put([]byte("\x00position"), at.Generation[:]) })} {
		if err := e.Rewind(at, func(f func(wire.Frame) error) error { return f(bad) }); err == nil {
			t.Errorf("%+v was taken", bad.Header)
		}
	}
}
