package shard

import (
	"sync"
	"time"
)

// pace holds writers to the speed of a flush that the log waits for, before the log is at its cap, where they would have to wait for all
// that is left of it. While the flush does its work, the log may take up the more of its room, the more of it is done.
type pace struct {
	room     int64 // bytes that the log could take when the flush began
	progress func() float64
	hurry    func() (release func()) // once: what is released stays so
	ended    chan struct{}           // closed when the flush has ended

	grown int64 // what the log has taken since; whoever has the turn
}

const (
	// The log may take paceAhead of its room while the flush has not begun to write, and up to paceShare when it is about to end: it has
	// to end, and the log has to be trimmed, before the room is used up.
	paceAhead = 0.25
	paceShare = 0.8
	// paceStep is which part of the room the flush gains while somebody waits: it and the writers are faster one after the other than
	// side by side.
	paceStep = 0.04
	// paceFirst is how long a commit waits at most. It is more than slowCommit, so those behind it are the loop's, where nobody else
	// has to wait with them, and they may wait for as long as paceWait.
	paceFirst = slowCommit + 5*time.Millisecond
	paceWait  = time.Second
	paceTick  = 5 * time.Millisecond
)

// newPace is for a flush of m that begins now, while the log could take so many bytes more; nil if m cannot tell its progress.
func (s *Shard) newPace(m StateMachine, room int64) *pace {
	p, ok := m.(Progresser)
	if !ok || room <= 0 {
		return nil
	}
	return &pace{room: room, progress: p.Progress, hurry: sync.OnceValue(s.hurry), ended: make(chan struct{})}
}

// end is called when the flush has ended.
func (p *pace) end() {
	close(p.ended)
	p.hurry()()
}

// ahead reports whether the log is further ahead of the flush than it may be, less a part of its room.
func (p *pace) ahead(less float64) bool {
	share := float64(p.grown)/float64(p.room) + less
	return share > paceAhead && share > paceAhead+(paceShare-paceAhead)*p.progress()
}

// wait is called when the log has taken n bytes, by who has the turn. It returns after most. The flush takes all processors that it can from the first
// time on that somebody waits for it.
func (p *pace) wait(n int, most time.Duration) {
	p.grown += int64(n)
	if !p.ahead(0) {
		return
	}
	p.hurry()
	tick, late := time.NewTicker(paceTick), time.NewTimer(most)
	defer tick.Stop()
	defer late.Stop()
	for p.ahead(paceStep) {
		select {
		case <-tick.C:
		case <-p.ended:
			return
		case <-late.C:
			return
		}
	}
}

// keepPace has the commit of n bytes wait for the flush if the log is ahead of it. Only the first one that waits counts as slow.
func (s *Shard) keepPace(p *pace, n int) {
	if !s.isSlow() {
		p.wait(n, paceFirst)
		return
	}
	begun := time.Now()
	p.wait(n, paceWait)
	s.waited += time.Since(begun)
}
