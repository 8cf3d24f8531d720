package backlog

import (
	"bytes"
	"errors"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A broken log does not pass for a full disk, though want of room broke it: what is recognised as ENOSPC goes on by
// itself when there is room, and a broken log does not, and may hold what was refused.
func TestBrokenIsNotFull(t *testing.T) {
	for name, breaks := range map[string]func(l *Log, full *bool) error{
		"sync": func(l *Log, full *bool) error {
			first := l.Next()
			if err := l.Append(build(first, 1, 100), first, first+1); err != nil {
				return err
			}
			*full = true
			return l.Sync()
		},
		"undo": func(l *Log, full *bool) error {
			*full = true
			first := l.Next()
			return l.Append(build(first, 1, 100), first, first+1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			full := false
			o := options(&hookFS{FS: vfs.NewMem(),
				sync: func(string) error {
					if full {
						return syscall.ENOSPC
					}
					return nil
				},
				write: func(_ string, b []byte) (int, error) {
					if full && len(bytes.Trim(b, "\x00")) > 0 {
						return len(b) - 40, syscall.ENOSPC
					}
					return len(b), nil
				}})
			l := create(t, o, 0)
			for range 2 {
				if err := breaks(l, &full); !errors.Is(err, ErrBroken) || errors.Is(err, syscall.ENOSPC) {
					t.Fatalf("%v: broken %t, full %t", err, errors.Is(err, ErrBroken), errors.Is(err, syscall.ENOSPC))
				}
			}
			full = false
			_ = l.Close()
		})
	}
}
