package replica

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/wire"
)

// valuesOf builds a values frame with a value for each key; an empty value is a delete.
func valuesOf(t *testing.T, keysAndValues ...string) wire.Frame {
	t.Helper()
	var b wire.Builder
	b.Reset()
	for i := 0; i < len(keysAndValues); i += 2 {
		if v := keysAndValues[i+1]; v != "" {
			b.Put([]byte(keysAndValues[i]), []byte(v))
		} else {
			b.Delete([]byte(keysAndValues[i]))
		}
	}
	raw, err := b.FinishValues()
	if err != nil {
		t.Fatal(err)
	}
	f, err := wire.ParseFrame(bytes.Clone(raw))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// newUndoing has asked for the keys.
func newUndoing(t *testing.T, fs vfs.FS, keys ...string) *undoing {
	t.Helper()
	u := &undoing{fs: fs, path: "values"}
	for _, k := range keys {
		u.keys = append(u.keys, []byte(k))
	}
	var err error
	if u.file, err = fs.Create(u.path, vfs.WriteCategoryUnspecified); err != nil {
		t.Fatal(err)
	}
	return u
}

// Values are kept if they answer, in order and in full, what was asked; they come back as they came, more than once, and
// damage on the disk is found.
func TestUndoing(t *testing.T) {
	fs := vfs.NewMem()
	u := newUndoing(t, fs, "a", "b", "c")
	first, second := valuesOf(t, "a", "1", "b", ""), valuesOf(t, "c", "3")
	for _, bad := range []wire.Frame{valuesOf(t, "b", ""), valuesOf(t, "x", "1")} {
		if err := u.keep(bad); !errors.Is(err, ErrProtocol) {
			t.Fatalf("values that were not asked for next: %v", err)
		}
	}
	if err := u.keep(first); err != nil {
		t.Fatal(err)
	}
	if err := u.complete(); !errors.Is(err, ErrProtocol) {
		t.Fatalf("the end, with a key missing: %v", err)
	}
	if err := u.keep(second); err != nil {
		t.Fatal(err)
	}
	if err := u.keep(second); !errors.Is(err, ErrProtocol) {
		t.Fatalf("values behind the last one: %v", err)
	}
	if err := u.complete(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		var got []byte
		if err := u.each(func(f wire.Frame) error { got = append(got, f.Raw...); return nil }); err != nil {
			t.Fatal(err)
		}
		if want := append(bytes.Clone(first.Raw), second.Raw...); !bytes.Equal(got, want) {
			t.Fatalf("kept were\n%x\nand they came back as\n%x", want, got)
		}
	}
	stop := errors.New("enough")
	if err := u.each(func(wire.Frame) error { return stop }); err != stop {
		t.Fatalf("the callback's error came back as %v", err)
	}
	f, err := fs.OpenReadWrite(u.path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{'X'}, int64(len(first.Raw)+wire.HeaderSize+2)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := u.each(func(wire.Frame) error { return nil }); !errors.Is(err, wire.ErrCRC) {
		t.Fatalf("a flipped byte: %v", err)
	}
	if err := u.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Stat(u.path); err == nil {
		t.Fatal("the file is still there")
	}
	if err := u.close(); err != nil {
		t.Fatalf("closing twice: %v", err)
	}
}

// What is said at length waits for what was said before, and for no longer than the session lasts.
func TestOutboxBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, done := newOutbox(), make(chan struct{})
		if !o.pushBehind(make([]byte, 100), 50, done) {
			t.Fatal("an empty outbox took nothing")
		}
		said := make(chan bool, 2)
		// Two calls, one after the other; the results are waited for below.
		go func() {
			said <- o.pushBehind([]byte("more"), 50, done)
			said <- o.pushBehind(make([]byte, 100), 4, done)
		}()
		synctest.Wait()
		if len(said) != 0 {
			t.Fatal("it did not wait")
		}
		if b, _ := o.take(nil); len(b) != 100 {
			t.Fatalf("took %d bytes", len(b))
		}
		if !<-said {
			t.Fatal("it was not said once there was room")
		}
		synctest.Wait()
		close(done)
		if <-said {
			t.Fatal("it was said behind the session's end")
		}
		if b, _ := o.take(nil); string(b) != "more" {
			t.Fatalf("took %q", b)
		}
	})
}
