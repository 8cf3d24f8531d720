package replica

import "time"

// Backoff says how long a link waits between attempts. Waits are drawn from [d/2, d), so that a hundred links that
// were cut together do not come back together (pitfall 34).
type Backoff struct {
	// Min is after the first failure, and doubled after each up to Max. Where nobody answers at the primary's address, which
	// costs nobody anything, it grows by a thirty-second: while nobody answers for T, to 100 ms + T/24 or so. Default
	// 100 ms and 5 s.
	Min, Max time.Duration
	Patient  time.Duration // least for refusals that pass by themselves. Default 1 s
	Slow     time.Duration // for what waits for a person. Default 10 s
}

func (b *Backoff) ensureDefaults() {
	if b.Min <= 0 {
		b.Min = 100 * time.Millisecond
	}
	if b.Max <= 0 {
		b.Max = 5 * time.Second
	}
	if b.Patient <= 0 {
		b.Patient = time.Second
	}
	if b.Slow <= 0 {
		b.Slow = 10 * time.Second
	}
}

// wait is how long to wait after the failures-th failure in a row, from 1; jitter is in [0, 1).
func (b Backoff) wait(kind retry, failures int, jitter float64) time.Duration {
	d := b.Slow
	if kind != retrySlow {
		d = b.Min
		if kind == retryPatient {
			d = max(d, b.Patient)
		}
		for ; failures > 1 && d < b.Max; failures-- {
			if kind == retryEasy {
				d += d/32 + 1
			} else {
				d *= 2
			}
		}
		d = min(d, b.Max)
	}
	return d/2 + time.Duration(jitter*float64(d/2))
}
