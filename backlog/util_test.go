package backlog

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/understudy-kv/understudy/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func options(fs vfs.FS) Options {
	return Options{FS: fs, Dir: "log", Memory: 16 << 10, Keep: 8 << 10, Disk: 64 << 10, SegmentBytes: 4 << 10, Shard: 3,
		Generation: func(uint64) wire.Generation { return wire.Generation{1, 2, 3} }}
}

func create(t testing.TB, o Options, first uint64) *Log {
	t.Helper()
	l, err := Create(o, first)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func reopen(t testing.TB, o Options) *Log {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	check(t, l)
	return l
}

func check(t testing.TB, l *Log) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.check(); err != nil {
		t.Fatal(err)
	}
}

// add appends and publishes one frame and returns it.
func add(t testing.TB, l *Log, count, size int) []byte {
	t.Helper()
	first := l.Next()
	f := build(first, count, size)
	if err := l.Append(f, first, first+uint64(count)); err != nil {
		t.Fatal(err)
	}
	l.Publish(first + uint64(count))
	return f
}

// drain reads everything published from offset from on, and checks what a Run says of itself.
func drain(t testing.TB, l *Log, from uint64, limit int) []byte {
	t.Helper()
	r, err := l.NewReader(from)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	out, err := drainReader(r, l.Published(), limit)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func drainReader(r *Reader, upto uint64, limit int) ([]byte, error) {
	var out []byte
	var seen stream
	for at, boundary := r.next, true; at < upto || !boundary; {
		run, err := r.Next(context.Background(), limit)
		if err == nil {
			err = seen.add(run, limit)
		}
		if err != nil {
			return out, err
		}
		out = append(out, run.Bytes...)
		at, boundary = run.Next, run.Boundary
	}
	return out, nil
}

// stream follows runs and checks what each says of itself.
type stream struct {
	part   []byte // of the frame that has not ended yet
	digest wire.Digest
}

func (s *stream) add(run Run, limit int) error {
	if limit == 0 {
		limit = defaultRun
	}
	if n := len(run.Bytes); n == 0 || n > max(limit, minRun) {
		return fmt.Errorf("a run of %d bytes, at most %d", n, limit)
	}
	s.part = append(s.part, run.Bytes...)
	b, next := s.part, uint64(0)
	for len(b) > 0 {
		f, err := wire.ParseFrame(b)
		if errors.Is(err, wire.ErrShort) {
			break
		}
		if err != nil {
			return err
		}
		s.digest, next, b = s.digest.Add(f.CRC()), f.Next(), b[len(f.Raw):]
	}
	if run.Boundary != (len(b) == 0) || run.Digest != s.digest || next != 0 && run.Next != next {
		return fmt.Errorf("a run with boundary=%t, digest %x, next %d; %d bytes of a frame are left, digest %x, next %d",
			run.Boundary, run.Digest, run.Next, len(b), s.digest, next)
	}
	s.part = append(s.part[:0], b...)
	return nil
}

// hookFS lets a test get between the log and its files.
type hookFS struct {
	vfs.FS
	write  func(name string, b []byte) (int, error) // how much of b to write, and then what to return
	sync   func(name string) error
	rename func() error // what to return after renaming
}

func (h *hookFS) Rename(from, to string) error {
	if err := h.FS.Rename(from, to); err != nil || h.rename == nil {
		return err
	}
	return h.rename()
}

func (h *hookFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := h.FS.OpenReadWrite(name, c, o...)
	if err != nil {
		return nil, err
	}
	return &hookFile{f, h, name}, nil
}

type hookFile struct {
	vfs.File
	fs   *hookFS
	name string
}

func (f *hookFile) WriteAt(b []byte, off int64) (int, error) {
	n, err := len(b), error(nil)
	if f.fs.write != nil {
		n, err = f.fs.write(f.name, b)
	}
	m, werr := f.File.WriteAt(b[:n], off)
	return m, errors.Join(err, werr)
}

func (f *hookFile) SyncData() error {
	if f.fs.sync != nil {
		if err := f.fs.sync(f.name); err != nil {
			return err
		}
	}
	return f.File.SyncData()
}
