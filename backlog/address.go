package backlog

import (
	"fmt"
	"io"
	"sort"
)

// Every byte that a log holds has an address, which grows from one frame to the next: whoever knows where a frame lies can
// have any part of it again, without a walk from a boundary. Frames of one Append lie one behind the other; between two
// segments there is a gap, the header. Addresses are of one Log value: the next one that opens the files has others.

// End is the address behind everything that was appended. Behind an Append, the frames that it was given lie before it.
// Only who appends can make something of it.
func (l *Log) End() int64 { return l.appending.active.end() }

// ReadAt reads len(p) bytes from the address on, which must be bytes of frames of one segment that were appended; so it is
// an [io.ReaderAt]. It verifies nothing. The error is ErrEvicted if they were trimmed, ErrClosed, or the file system's. Any
// goroutine may call it.
func (l *Log) ReadAt(p []byte, addr int64) (int, error) {
	l.mu.Lock()
	i := sort.Search(len(l.mu.segments), func(i int) bool { return l.mu.segments[i].base > addr })
	if i == 0 {
		defer l.mu.Unlock()
		return 0, fmt.Errorf("%w: address %d was trimmed, the oldest is %d", ErrEvicted, addr, l.mu.segments[0].base)
	}
	s := l.mu.segments[i-1]
	if end := addr + int64(len(p)); end > s.end() {
		defer l.mu.Unlock()
		return 0, fmt.Errorf("backlog: reading addresses [%d, %d) of %s, which ends at %d: %w", addr, end, s.path, s.end(), io.ErrUnexpectedEOF)
	}
	s.looked = true
	f, err := l.enterLocked(s)
	if err != nil {
		return 0, err
	}
	defer l.leave(s)
	if err := readFull(f, s.path, p, addr-s.base, s.first); err != nil {
		return 0, err
	}
	return len(p), nil
}
