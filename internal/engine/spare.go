package engine

import (
	"sync"
	"sync/atomic"

	"github.com/understudy-kv/understudy/internal/hugepage"
)

// spare is the next chunk of the memtable that grows, made beside it: who puts does not wait until the kernel has found memory and
// cleared it, which takes a tenth of a millisecond for a large page, and ten where a virtual machine has to get it from its host.
type spare struct {
	chunk   atomic.Pointer[[]byte]
	filling atomic.Bool
	fills   sync.WaitGroup
}

// take returns a chunk of maxChunk bytes, and has the next one made. huge tells whether that one is to be on large pages. Engine.write
// is held.
func (s *spare) take(huge bool) []byte {
	c := s.chunk.Swap(nil)
	if s.filling.CompareAndSwap(false, true) {
		// It owns nothing and ends with the chunk; Close waits for it.
		s.fills.Go(func() {
			defer s.filling.Store(false)
			next := makeChunk(maxChunk, huge)
			hugepage.Populate(next)
			s.chunk.Store(&next)
		})
	}
	if c != nil {
		return *c
	}
	return makeChunk(maxChunk, huge)
}

func makeChunk(size int, huge bool) []byte {
	c := make([]byte, size)
	if huge {
		hugepage.Advise(c)
	}
	return c
}
