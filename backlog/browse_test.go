package backlog

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Who browses reads what ReadAt reads, over segments, also what is appended meanwhile; in the files of the kernel's, without a call for
// each piece, and in others.
func TestBrowse(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"kernel": vfs.Default, "memory": vfs.NewMem()} {
		t.Run(name, func(t *testing.T) {
			o := options(fs)
			if fs == vfs.Default {
				o.Dir = t.TempDir()
			}
			o.Keep = 1
			l := create(t, o, 0)
			rng := rand.New(rand.NewPCG(1, 1))
			b := l.Browse().(*browser)
			type placed struct {
				addr   int64
				frames []byte
			}
			var all []placed
			for range 30 {
				f := add(t, l, 1+rng.IntN(3), rng.IntN(1500))
				all = append(all, placed{l.End() - int64(len(f)), f})
				for i := range 20 {
					p := all[len(all)-1]
					if i > 0 {
						p = all[rng.IntN(len(all))]
					}
					from := rng.IntN(len(p.frames))
					got := make([]byte, rng.IntN(len(p.frames)-from+1))
					if n, err := b.ReadAt(got, p.addr+int64(from)); err != nil || n != len(got) || !bytes.Equal(got, p.frames[from:from+n]) {
						t.Fatalf("%d bytes from address %d on: %d other ones (%v)", len(got), p.addr+int64(from), n, err)
					}
				}
			}
			if n := len(b.maps); n < 4 || n != len(l.mu.segments) {
				t.Fatalf("%d of %d segments are known", n, len(l.mu.segments))
			}
			for i, s := range b.maps {
				if (s.m != nil) != (fs == vfs.Default) || i > 0 && s.from < b.maps[i-1].to {
					t.Errorf("segment %d, addresses [%d, %d): mapped: %t", i, s.from, s.to, s.m != nil)
				}
			}
			if _, err := b.ReadAt(make([]byte, 1), l.End()); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("reading behind the end: %v", err)
			}
			// A segment that is trimmed meanwhile is no fault: the bytes, or the news.
			if err := l.Sync(); err != nil {
				t.Fatal(err)
			}
			l.Trim(l.Next(), 0, false)
			got := make([]byte, len(all[0].frames))
			if _, err := b.ReadAt(got, all[0].addr); err != nil && !errors.Is(err, ErrEvicted) || err == nil && !bytes.Equal(got, all[0].frames) {
				t.Errorf("what was trimmed: %v", err)
			}
			for _, s := range l.mu.segments {
				if s.pins > 0 {
					t.Errorf("%s has %d pins", s.path, s.pins)
				}
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := b.ReadAt(got[:1], all[len(all)-1].addr); !errors.Is(err, ErrClosed) {
				t.Errorf("after both were closed: %v", err)
			}
		})
	}
}
