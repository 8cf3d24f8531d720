package engine

import (
	"sync"
	"time"
)

const (
	// quietFor is after how long quiet ends that nobody has ended.
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
		ended chan struct{} // closed when the last hold ends; nil without one
	}
}

// hold keeps compactions waiting until release is called, which may be done again, or quietFor is over.
func (q *quiet) hold() (release func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.holds++; q.mu.holds == 1 {
		q.mu.ended = make(chan struct{})
	}
	end := sync.OnceFunc(func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.mu.holds--; q.mu.holds == 0 {
			close(q.mu.ended)
			q.mu.ended = nil
		}
	})
	timer := time.AfterFunc(quietFor, end)
	return func() {
		timer.Stop()
		end()
	}
}

// wait returns when a compaction may go on, or when the engine closes.
func (q *quiet) wait(closing <-chan struct{}) {
	const look = 100 * time.Millisecond // for tables that were flushed meanwhile
	for {
		q.mu.Lock()
		ended := q.mu.ended
		q.mu.Unlock()
		if ended == nil || q.tables() >= quietTables {
			return
		}
		timer := time.NewTimer(look)
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
