package server

import "time"

// spin tells whether it is worth to linger: of late, more often than not something came meanwhile.
type spin struct{ score, skipped int8 }

// maxSpin is how many times lingering has to fail before it is only tried at times, and how rarely that is.
const maxSpin = 16

func (s *spin) worth() bool {
	if s.score > 0 {
		return true
	}
	if s.skipped++; s.skipped < maxSpin {
		return false
	}
	s.skipped = 0
	return true
}

func (s *spin) note(came bool) {
	if came {
		s.score = min(s.score+1, maxSpin)
	} else {
		s.score = max(s.score-1, 0)
	}
}

// usage is how much of its time a reactor has had something to do of late.
type usage struct{ whole, idle time.Duration }

// usageFor is about how far back that looks.
const usageFor = 4 * time.Millisecond

// note takes a round, and since when there was nothing to do in it; the zero time if there was always something. The first round has
// begun at no time.
func (u *usage) note(begun, idle, end time.Time) {
	if begun.IsZero() {
		return
	}
	u.whole += end.Sub(begun)
	if !idle.IsZero() {
		u.idle += end.Sub(idle)
	}
	for u.whole > usageFor {
		u.whole, u.idle = u.whole/2, u.idle/2
	}
}

// high reports whether it was more than half.
func (u *usage) high() bool { return u.idle < u.whole/2 }
