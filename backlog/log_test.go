package backlog

import (
	"bytes"
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/wire"
)

// Everything that was published is read back, byte for byte: from memory, from the disk, across both, after a reopen,
// with runs smaller and larger than frames, and frames smaller and larger than slabs and segments (pitfall 29).
func TestReadBack(t *testing.T) {
	smallest, step := 1, 7
	if testing.Short() {
		smallest, step = 997, 19
	}
	for name, sizes := range map[string][]int{
		"small":     {10, 20, 30, 40},
		"segment":   {1000, 2000, 100},
		"oversized": {100, 9000, 100, 100, 5000, 70000, 10},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(vfs.NewMem())
			l := create(t, o, 100)
			var want []byte
			var bounds []uint64
			var at []int
			for i := range 100 {
				bounds, at = append(bounds, l.Next()), append(at, len(want))
				want = append(want, add(t, l, 1+i%3, sizes[i%len(sizes)])...)
				check(t, l)
				if b := l.Bounds(); b.MemoryBytes > o.Memory {
					t.Fatalf("%d bytes of slabs, at most %d", b.MemoryBytes, o.Memory)
				}
			}
			for range 2 {
				for i := 0; i < len(bounds); i += step {
					for _, limit := range []int{smallest, 600, 5000, 0} {
						if limit == 0 {
							limit = defaultRun
						}
						if got := drain(t, l, bounds[i], limit); !bytes.Equal(got, want[at[i]:]) {
							t.Fatalf("from %d in runs of %d: %d bytes, want %d", bounds[i], limit, len(got), len(want)-at[i])
						}
					}
					var got []byte
					err := l.Replay(bounds[i], func(f wire.Frame) error { got = append(got, f.Raw...); return nil })
					if err != nil || !bytes.Equal(got, want[at[i]:]) {
						t.Fatalf("replay from %d: %v, %d bytes, want %d", bounds[i], err, len(got), len(want)-at[i])
					}
					if n := l.BytesFrom(bounds[i]); n < int64(len(want)-at[i]) || n >= int64(len(want)-at[i])+64<<10 {
						t.Fatalf("%d bytes from %d, want %d", n, bounds[i], len(want)-at[i])
					}
				}
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				l = reopen(t, o)
				if r := l.Recovered(); r.Next != l.Next() || r.CutBytes != 0 || r.CutFile != "" || len(r.Dropped) != 0 {
					t.Fatalf("a clean log was recovered as %+v", r)
				}
			}
		})
	}
}

// An empty log answers ErrEvicted for an old offset, never "no frames".
func TestEmptyLogEvicts(t *testing.T) {
	l := create(t, options(vfs.NewMem()), 50)
	for offset, want := range map[uint64]error{0: ErrEvicted, 49: ErrEvicted, 50: nil, 51: ErrFuture} {
		if _, err := l.Boundary(offset); !errors.Is(err, want) {
			t.Errorf("Boundary(%d): %v, want %v", offset, err, want)
		}
		r, err := l.NewReader(offset)
		if !errors.Is(err, want) {
			t.Errorf("NewReader(%d): %v, want %v", offset, err, want)
		}
		if r != nil {
			r.Close()
		}
	}
	if err := l.Replay(49, nil); !errors.Is(err, ErrEvicted) {
		t.Errorf("Replay(49): %v", err)
	}
}
