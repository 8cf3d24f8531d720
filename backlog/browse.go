package backlog

import (
	"io"
	"slices"
	"sort"

	"github.com/understudy-kv/understudy/internal/pagecache"
)

// browser is what Browse returns.
type browser struct {
	l    *Log
	maps []browsed // ascending
	last int       // where the last read was
}

// browsed is a segment, as far as it went when it was looked for.
type browsed struct {
	from, to int64              // addresses
	m        *pagecache.Mapping // nil where there is none
}

// Browse is for who reads much of the log here and there, for a while: it reads as [Log.ReadAt] does, faster where the kernel has the
// segments in memory. What was trimmed since it was first read from it may still give. One goroutine uses it, and closes it, also behind
// the log's Close.
func (l *Log) Browse() interface {
	io.ReaderAt
	io.Closer
} {
	return &browser{l: l}
}

// ReadAt is [Log.ReadAt].
func (b *browser) ReadAt(p []byte, addr int64) (int, error) {
	if s := b.find(addr); s != nil && s.m != nil && addr+int64(len(p)) <= s.to && s.m.Read(p, addr-s.from) {
		return len(p), nil
	}
	return b.l.ReadAt(p, addr)
}

// find is the segment that has the address, mapped if it can be; nil if there is none.
func (b *browser) find(addr int64) *browsed {
	if b.last < len(b.maps) && b.maps[b.last].has(addr) {
		return &b.maps[b.last]
	}
	i := sort.Search(len(b.maps), func(i int) bool { return b.maps[i].to > addr })
	if i == len(b.maps) || !b.maps[i].has(addr) {
		s, ok := b.l.mapAt(addr)
		if !ok {
			return nil
		}
		if i > 0 && b.maps[i-1].from == s.from { // the segment has grown
			i--
			if b.maps[i].m != nil {
				_ = b.maps[i].m.Close() // an error costs address space
			}
		} else {
			b.maps = slices.Insert(b.maps, i, browsed{})
		}
		b.maps[i] = s
	}
	b.last = i
	return &b.maps[i]
}

func (s *browsed) has(addr int64) bool { return addr >= s.from && addr < s.to }

// mapAt maps the segment that has the address.
func (l *Log) mapAt(addr int64) (browsed, bool) {
	l.mu.Lock()
	i := sort.Search(len(l.mu.segments), func(i int) bool { return l.mu.segments[i].base > addr })
	if i == 0 || addr >= l.mu.segments[i-1].end() {
		l.mu.Unlock()
		return browsed{}, false // ReadAt tells what is wrong
	}
	s := l.mu.segments[i-1]
	to := s.end()
	f, err := l.enterLocked(s)
	if err != nil {
		return browsed{}, false
	}
	defer l.leave(s)
	return browsed{s.base, to, pagecache.Map(f, to-s.base)}, true
}

// Close gives back what ReadAt uses.
func (b *browser) Close() (err error) {
	for _, s := range b.maps {
		if s.m == nil {
			continue
		}
		if cerr := s.m.Close(); err == nil {
			err = cerr
		}
	}
	b.maps = nil
	return err
}
