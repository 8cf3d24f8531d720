package backlog

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/understudy-kv/understudy/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// frame builds one frame of count mutations from offset first whose values are size bytes that depend on seed.
func frame(t testing.TB, first uint64, count, size int, seed byte) []byte {
	var b wire.Builder
	b.Reset()
	value := bytes.Repeat([]byte{seed}, size)
	for i := range count {
		if len(value) > 8 {
			copy(value, []byte{byte(first), byte(first >> 8), byte(i), 0x55, 0xD1})
		}
		b.Put([]byte{'k', byte(i)}, value)
		b.End()
	}
	raw, err := b.Finish(first, int64(first)*1000)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(raw)
}

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
	f := frame(t, first, count, size, byte(first))
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
	for at, boundary := r.next, true; at < upto || !boundary; {
		run, err := r.Next(context.Background(), limit)
		if err != nil {
			return out, err
		}
		if len(run.Bytes) == 0 || len(run.Bytes) > max(limit, minRun) {
			return out, errors.New("a run of a bad size")
		}
		out = append(out, run.Bytes...)
		at, boundary = run.Next, run.Boundary
		if boundary != (run.Digest == digestOf(out)) {
			return out, errors.New("a run with a wrong digest or boundary")
		}
	}
	return out, nil
}

// digestOf is the digest of whole frames; of anything else it is some other value.
func digestOf(b []byte) wire.Digest {
	var d wire.Digest
	for len(b) > 0 {
		f, err := wire.ParseFrame(b)
		if err != nil {
			return ^d
		}
		d, b = d.Add(f.CRC()), b[len(f.Raw):]
	}
	return d
}
