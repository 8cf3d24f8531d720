package engine

import (
	"sync"
	"time"
)

const (
	// quietFor bounds how long compactions wait behind the newest call of Quiet, whatever becomes of who called.
	quietFor = 10 * time.Second
	// quietTables is how many tables may lie in level 0 while compactions wait: half of what makes Apply wait.
	quietTables = stopTables / 2
)

// quiet keeps compactions waiting, between two of their tables, for as long as somebody wants the disk and the processors
// for something that has an end. Its mutex is a leaf.
type quiet struct {
	tables func() int64 // in level 0

	mu struct {
		sync.Mutex
		holds int
		until time.Time
		ended chan struct{} // closed when the last hold is released; nil without one
	}
}

// hold keeps compactions waiting until release is called, which may be done again.
func (q *quiet) hold() (release func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.holds++; q.mu.holds == 1 {
		q.mu.ended = make(chan struct{})
	}
	q.mu.until = time.Now().Add(quietFor)
	return sync.OnceFunc(func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.mu.holds--; q.mu.holds == 0 {
			close(q.mu.ended)
			q.mu.ended = nil
		}
	})
}

// wait returns when a compaction may go on, or when the engine closes.
func (q *quiet) wait(closing <-chan struct{}) {
	const look = 100 * time.Millisecond // for tables that were flushed meanwhile
	for {
		q.mu.Lock()
		ended, left := q.mu.ended, time.Until(q.mu.until)
		q.mu.Unlock()
		if ended == nil || left <= 0 || q.tables() >= quietTables {
			return
		}
		timer := time.NewTimer(min(left, look))
		select {
		case <-ended:
		case <-timer.C:
		case <-closing:
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// Quiet has compactions wait until release is called, for ten seconds at most and while level 0 has room: whoever has work
// with an end, such as shipping a checkpoint, gets the disk and the processors that they would take. Flushes go on.
func (e *Engine) Quiet() (release func()) { return e.gate.quiet.hold() }
