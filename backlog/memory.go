package backlog

// slab is a piece of memory that holds whole, contiguous frames: one copy for all readers.
//
// A slab is filled from the front by the appender. Readers read only what lies before a published offset, so the two
// never touch the same bytes and the copy needs no lock. refs, n, next, live and use are guarded by Log.mu.
type slab struct {
	buf   []byte
	first uint64 // offset of its first frame
	next  uint64 // offset behind its last committed frame
	n     int    // committed bytes
	refs  int    // readers whose Run points into it
	live  bool   // in the window
	use   uint64 // how often the slab was taken, so that a reader can tell a reused one from the one it knew
}

// memory is the window of the newest frames, and the slabs that are in use or free. It never makes more than limit
// slabs: when all of them are pinned by readers that do not move, new frames are simply not kept in memory, the window
// begins again behind them, and readers get them from the disk.
type memory struct {
	window []*slab // oldest first; contiguous, and the last one ends at Next
	free   []*slab
	made   int
	limit  int
	slab   int // bytes
}

func newMemory(o *Options) memory {
	m := memory{slab: o.slabBytes()}
	m.limit = int(o.Memory / int64(m.slab))
	m.window, m.free = make([]*slab, 0, m.limit), make([]*slab, 0, m.limit)
	return m
}

func (m *memory) firstLocked(next uint64) uint64 {
	if len(m.window) == 0 {
		return next
	}
	return m.window[0].first
}

func (m *memory) bytesLocked() int64 { return int64(m.made) * int64(m.slab) }

// takeLocked gives a slab to fill, evicting the oldest frames if need be, or nil if every slab is pinned. A slab
// without a buffer is new: the caller makes the buffer, without the lock.
func (m *memory) takeLocked() *slab {
	for len(m.free) == 0 && m.made >= m.limit {
		if len(m.window) == 0 {
			return nil
		}
		m.evictLocked()
	}
	if n := len(m.free); n > 0 {
		s := m.free[n-1]
		m.free = m.free[:n-1]
		return s
	}
	m.made++
	return &slab{}
}

// pushLocked puts a slab at the end of the window, for frames from offset first on.
func (m *memory) pushLocked(s *slab, first uint64) {
	s.first, s.next, s.n, s.live = first, first, 0, true
	s.use++
	m.window = append(m.window, s)
}

// evictLocked drops the oldest slab from the window. If it is pinned, the last reader frees it.
func (m *memory) evictLocked() {
	s := m.window[0]
	m.window = m.window[:copy(m.window, m.window[1:])]
	s.live = false
	m.freeLocked(s)
}

func (m *memory) freeLocked(s *slab) {
	if !s.live && s.refs == 0 {
		m.free = append(m.free, s)
	}
}

// resetLocked empties the window: the next frame begins it again.
func (m *memory) resetLocked() {
	for len(m.window) > 0 {
		m.evictLocked()
	}
}

// dropBeforeLocked evicts slabs that hold anything older than offset.
func (m *memory) dropBeforeLocked(offset uint64) {
	for len(m.window) > 0 && m.window[0].first < offset {
		m.evictLocked()
	}
}

// findLocked is the slab that has the frame which offset lies in, or nil.
func (m *memory) findLocked(offset uint64) *slab {
	for i := len(m.window) - 1; i >= 0; i-- {
		if s := m.window[i]; s.first <= offset {
			if offset < s.next {
				return s
			}
			return nil
		}
	}
	return nil
}

func (m *memory) unpinLocked(s *slab) {
	s.refs--
	m.freeLocked(s)
}

// keep copies one frame, already in the file, into memory. Only the appender calls it.
func (l *Log) keep(frame []byte, first, next uint64) {
	a := &l.appending
	if a.slab == nil || a.filled+len(frame) > len(a.slab.buf) {
		if !l.nextSlab(len(frame), first) {
			return
		}
	}
	copy(a.slab.buf[a.filled:], frame)
	a.filled += len(frame)
	l.mu.Lock()
	if a.slab.live {
		a.slab.n, a.slab.next = a.filled, next
	} else {
		a.slab = nil // trimmed under it
	}
	l.mu.Unlock()
}

// nextSlab makes room for a frame of n bytes that begins at offset first, and reports whether there is any.
func (l *Log) nextSlab(n int, first uint64) bool {
	a, m := &l.appending, &l.mu.memory
	a.slab, a.filled = nil, 0
	l.mu.Lock()
	var s *slab
	if n <= m.slab {
		s = m.takeLocked()
	}
	if s == nil {
		m.resetLocked()
		l.mu.Unlock()
		return false
	}
	l.mu.Unlock()
	if s.buf == nil {
		s.buf = make([]byte, m.slab)
	}
	l.mu.Lock()
	m.pushLocked(s, first)
	l.mu.Unlock()
	a.slab = s
	return true
}
