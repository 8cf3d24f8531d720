package backlog

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const benchFrame = 4 << 10

// benchLog is a log on the real disk with n frames of 4 KiB.
func benchLog(b *testing.B, memory int64, n int) *Log {
	b.Helper()
	o := Options{FS: vfs.Default, Dir: b.TempDir() + "/log", Memory: memory}
	l := create(b, o, 0)
	frames := make([]byte, 0, n*(benchFrame+100))
	for i := range n {
		frames = append(frames, build(uint64(i), 1, benchFrame)...)
	}
	size := len(frames) / max(n, 1)
	for i := range n {
		if err := l.Append(frames[:size:size], uint64(i), uint64(i)+1); err != nil {
			b.Fatal(err)
		}
		frames = frames[size:]
	}
	l.Publish(uint64(n))
	return l
}

// BenchmarkAppend is one frame of 4 KiB: one write and one copy, published, without a sync.
func BenchmarkAppend(b *testing.B) {
	l := benchLog(b, 0, 0)
	frames := make([][]byte, 8<<10)
	b.SetBytes(int64(len(build(0, 1, benchFrame))))
	b.ReportAllocs()
	for b.Loop() {
		next := l.Next()
		i := int(next) % len(frames)
		if i == 0 { // neither building the frames nor the disk's bound is a part of this
			b.StopTimer()
			if err := l.Sync(); err != nil {
				b.Fatal(err)
			}
			l.Trim(next, 0, false)
			for i := range frames {
				frames[i] = build(next+uint64(i), 1, benchFrame)
			}
			b.StartTimer()
		}
		if err := l.Append(frames[i], next, next+1); err != nil {
			b.Fatal(err)
		}
		l.Publish(next + 1)
	}
}

// BenchmarkReaderMemory is one run of 256 KiB from slabs.
func BenchmarkReaderMemory(b *testing.B) { benchReader(b, DefaultMemory) }

// BenchmarkReaderDisk is one run of 256 KiB from segments in the page cache, verified.
func BenchmarkReaderDisk(b *testing.B) { benchReader(b, minMemory) }

func benchReader(b *testing.B, memory int64) {
	l := benchLog(b, memory, 8<<10)
	from := uint64(0)
	if memory == minMemory {
		if m := l.Bounds().MemoryFirst; m < l.Next() {
			b.Fatal("4 KiB frames are not to be in this memory")
		}
	}
	r := newReader(b, l, from)
	ctx := b.Context()
	var bytes int64
	b.ReportAllocs()
	for b.Loop() {
		if r.next == l.Published() {
			b.StopTimer()
			r.Close()
			r = newReader(b, l, from)
			run, err := r.Next(ctx, 0) // makes the buffer
			if err != nil || run.Next == from {
				b.Fatal(err)
			}
			b.StartTimer()
		}
		run, err := r.Next(ctx, 0)
		if err != nil {
			b.Fatal(err)
		}
		bytes += int64(len(run.Bytes))
	}
	b.SetBytes(bytes / int64(b.N))
}

// BenchmarkOpen is the verified recovery of 64 MiB in the page cache.
func BenchmarkOpen(b *testing.B) {
	l := benchLog(b, 0, 16<<10)
	size := l.Bounds().Bytes
	if err := l.Sync(); err != nil {
		b.Fatal(err)
	}
	l.Close()
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		l, err := Open(l.o)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		l.Close()
		b.StartTimer()
	}
}
