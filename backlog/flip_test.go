package backlog

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/wire"
)

// image is the files of a log.
type image map[string][]byte

func takeImage(t *testing.T, fs vfs.FS) image {
	t.Helper()
	names, err := fs.List("log")
	if err != nil {
		t.Fatal(err)
	}
	m := image{}
	for _, name := range names {
		f, err := fs.Open("log/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if m[name], err = io.ReadAll(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return m
}

func (m image) mount(t *testing.T) vfs.FS {
	t.Helper()
	fs := vfs.NewMem()
	if err := fs.MkdirAll("log", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, b := range m {
		f, err := fs.Create("log/"+name, category)
		if err == nil {
			_, err = f.Write(bytes.Clone(b))
		}
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return fs
}

// smallLog has three segments, the first two and one frame of the third one synced.
func smallLog(t *testing.T) (m image, w *twin, synced uint64) {
	fs := vfs.NewMem()
	l := create(t, options(fs), 0)
	w = &twin{bounds: []uint64{0}}
	for i := range 8 {
		w.frames = append(w.frames, add(t, l, 1, 1200))
		w.bounds = append(w.bounds, l.Next())
		if i == 6 {
			if err := l.Sync(); err != nil {
				t.Fatal(err)
			}
		}
	}
	synced = l.Durable()
	w.published = l.Next()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if m = takeImage(t, fs); len(m) != 4 || synced != 7 || w.next() != 8 {
		t.Fatalf("%d files, synced up to %d, next %d", len(m), synced, w.next())
	}
	return m, w, synced
}

// judge opens a damaged log and checks that it was refused, or holds an undamaged prefix with everything that was
// synced, and says what it cut. Inspect must have foretold it.
func judgeImage(t *testing.T, m image, w *twin, synced uint64, power bool) {
	t.Helper()
	o := options(m.mount(t))
	o.PowerLost = power
	foretold, err := Inspect(o.FS, o.Dir, o.Shard, power)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(o)
	var corrupt *CorruptError
	if errors.As(err, &corrupt) {
		if corrupt.Offset > w.next() || !strings.HasPrefix(corrupt.File, "log/") || foretold.Corrupt == nil || *foretold.Corrupt != *corrupt {
			t.Fatalf("refused with %v; foretold %v", corrupt, foretold.Corrupt)
		}
		if after := takeImage(t, o.FS); !sameImage(after, m) {
			t.Fatal("a log that was refused was changed")
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b, r := l.Bounds(), l.Recovered()
	if b.Next < synced || foretold.Corrupt != nil || foretold.Next != b.Next {
		t.Fatalf("opened up to %d, synced was %d; foretold %d, %v", b.Next, synced, foretold.Next, foretold.Corrupt)
	}
	if b.Next < w.next() && r.CutBytes == 0 && len(r.Dropped) == 0 {
		t.Fatalf("silently lost what is behind %d", b.Next)
	}
	want, ok := w.from(0, b.Next)
	if got := drain(t, l, 0, 0); !ok || b.Oldest != 0 || !bytes.Equal(got, want) {
		t.Fatalf("read other bytes up to %d", b.Next)
	}
}

func sameImage(a, b image) bool {
	for name := range b {
		if name != watermarkName && !bytes.Equal(a[name], b[name]) {
			return false
		}
	}
	return len(a) == len(b)
}

// A bit flipped in any byte of a log is refused, or cut by the rules; never read as something else (design §9). Damage
// to the side file weakens what is known to be synced, so then only the headers' word for it counts.
func TestBitFlip(t *testing.T) {
	m, w, synced := smallLog(t)
	stride := 1
	if testing.Short() {
		stride = 7
	}
	for name, b := range m {
		for i := 0; i < len(b); i += stride {
			b[i] ^= 1 << (i % 8)
			for _, power := range []bool{false, true} {
				promised := synced
				if name == watermarkName {
					promised = 0
				}
				judgeImage(t, m, w, promised, power)
				if t.Failed() {
					t.Fatalf("byte %d of %s, power lost: %t", i, name, power)
				}
			}
			b[i] ^= 1 << (i % 8)
		}
	}
}

// A file cut short at any byte, or zeroed from there on, is a torn tail if it is the last one and nothing
// synced is gone, and corruption if not; so is one that is missing.
func TestTruncated(t *testing.T) {
	m, w, synced := smallLog(t)
	for name, b := range m {
		if name == watermarkName {
			continue
		}
		for n := 0; n < len(b); n += 1 + len(b)/300 {
			for _, power := range []bool{false, true} {
				m[name] = b[:n]
				judgeImage(t, m, w, synced, power)
				m[name] = append(bytes.Clone(b[:n]), make([]byte, len(b)-n)...)
				judgeImage(t, m, w, synced, power)
				if t.Failed() {
					t.Fatalf("%s cut at %d, power lost: %t", name, n, power)
				}
			}
		}
		m[name] = b
	}
	for name, b := range m {
		if name == watermarkName || name == segmentName(0) { // without its first segment it is a trimmed log
			continue
		}
		delete(m, name)
		judgeImage(t, m, w, synced, true)
		m[name] = b
	}
}

// Damage that appears while the log is open ends the reader and the replay that meet it, with the place, and none of
// the damaged frame was handed out.
func TestDamageUnderReader(t *testing.T) {
	for _, c := range []struct{ size, limit int }{{1200, 0}, {9000, 2000}} {
		fs := vfs.NewMem()
		l := create(t, options(fs), 0)
		var want []byte
		for range 3 {
			want = append(want, add(t, l, 1, c.size)...)
		}
		add(t, l, 1, 20000) // out of memory
		s := l.mu.segments[len(l.mu.segments)-2]
		b, err := fs.UnsafeGetFileDataBuffer(s.path)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)-300] ^= 4
		r := newReader(t, l, 0)
		got, err := drainReader(r, l.Published(), c.limit)
		var corrupt *CorruptError
		if !errors.As(err, &corrupt) || corrupt.File != s.path || corrupt.Offset != 2 || r.next != 2 {
			t.Fatalf("at offset %d: %v", r.next, err)
		}
		if len(got) >= len(want) || !bytes.HasPrefix(want, got) {
			t.Fatalf("%d bytes were handed out", len(got))
		}
		if _, again := r.Next(t.Context(), 0); again != err {
			t.Fatalf("asked again: %v", again)
		}
		if err := l.Replay(0, func(wire.Frame) error { return nil }); !errors.As(err, &corrupt) || corrupt.Offset != 2 {
			t.Fatalf("replay: %v", err)
		}
	}
}

// Options report every fault at once.
func TestOptions(t *testing.T) {
	err := (&Options{Keep: 5, Disk: 4, Memory: 1, SegmentBytes: 1}).Validate()
	for _, want := range []string{"FS is nil", "Dir is empty", "Memory is 1", "SegmentBytes is 1", "Disk is 4"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	o := Options{FS: vfs.NewMem(), Dir: "log"}
	o.EnsureDefaults()
	if err := o.Validate(); err != nil || o.Memory != 16<<20 || o.Keep != 128<<20 || o.Disk != 2<<30 || o.SegmentBytes != 32<<20 {
		t.Errorf("defaults are %+v, %v", o, err)
	}
	if _, err := Open(o); err == nil {
		t.Error("opened a directory that is not there")
	}
	if err := o.FS.MkdirAll("log", 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(o); !errors.Is(err, ErrNoLog) {
		t.Errorf("opened an empty directory: %v", err)
	}
	create(t, o, 0).Close()
	if _, err := Create(o, 0); err == nil || !strings.Contains(err.Error(), "holds a log already") {
		t.Errorf("created a log over another: %v", err)
	}
}
