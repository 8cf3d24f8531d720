package backlog

import (
	"errors"
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/wire"
)

// Inspect says what Open would do, beside a log that is open, and changes nothing.
func TestInspectBesideALiveLog(t *testing.T) {
	fs := vfs.NewMem()
	l, err := Create(Options{FS: fs, Dir: "log", Shard: 3}, 10)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var b wire.Builder
	for first := uint64(10); first < 20; first++ {
		b.Reset()
		b.Put([]byte("k"), []byte("v"))
		b.End()
		raw, err := b.Finish(first, 1)
		if err == nil {
			err = l.Append(raw, first, first+1)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	in, err := Inspect(fs, "log", 3, false)
	if err != nil || in.Next != 20 || in.Tail != 0 || in.Corrupt != nil || len(in.Segments) != 1 || in.Segments[0].Header.First != 10 || in.Segments[0].Header.Shard != 3 {
		t.Fatalf("%+v, %v", in, err)
	}
	if in, err = Inspect(fs, "log", 4, false); err != nil || in.Corrupt == nil {
		t.Errorf("another shard's log: %+v, %v", in, err)
	}
	if _, err := Inspect(fs, "", 3, false); !errors.Is(err, ErrNoLog) {
		t.Errorf("a directory without a log: %v", err)
	}
}

// A hole behind what was synced is what a power loss leaves, and damage otherwise.
func TestInspectTellsAPowerLossFromDamage(t *testing.T) {
	fs := vfs.NewMem()
	l, err := Create(Options{FS: fs, Dir: "log"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var b wire.Builder
	size := 0
	for first := range uint64(3) {
		b.Reset()
		b.Put([]byte("k"), []byte("value"))
		b.End()
		raw, err := b.Finish(first, 1)
		if err == nil {
			err = l.Append(raw, first, first+1)
		}
		if err != nil {
			t.Fatal(err)
		}
		size = len(raw)
	}
	f, err := fs.OpenReadWrite("log/"+segmentName(0), category)
	if err != nil {
		t.Fatal(err)
	}
	at := int64(SegmentHeaderSize + size + wire.HeaderSize + 2)
	if _, err := f.WriteAt([]byte{0xee}, at); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	f.Close()
	in, err := Inspect(fs, "log", 0, true)
	if err != nil || in.Corrupt != nil || in.Next != 1 || in.Tail != int64(2*size) {
		t.Errorf("after a power loss: %+v, %v", in, err)
	}
	in, err = Inspect(fs, "log", 0, false)
	if err != nil || in.Corrupt == nil || in.Corrupt.Byte != int64(SegmentHeaderSize+size) || in.Next != 1 {
		t.Errorf("without one: %+v, %v", in, err)
	}
}
