package loadgen

import (
	"fmt"
	"time"
)

// pace says when a thread's requests are due: the n-th at n times the interval, whatever has become of the others.
type pace struct {
	interval float64 // ns
	n        int64
	turn     int // whose turn it is among the connections
}

func newPace(c *Config) pace { return pace{interval: 1e9 * float64(c.Threads) / c.Rate} }

func (p *pace) due() time.Duration { return time.Duration(float64(p.n) * p.interval) }

// maxWaiting is how many requests may be unanswered with a rate: a server that far behind will not catch up, and what
// the run would measure is how long it was.
const maxWaiting = 4 << 20

// emit sends every request that is due, the connections taking turns, and returns how long nothing will be.
func (t *thread) emit(now time.Duration) (next time.Duration, err error) {
	touched := 0
	first := t.pace.turn
	for !t.over {
		due := t.pace.due()
		if t.Duration > 0 && due >= t.Duration {
			t.over = true
			break
		}
		if due > now {
			break
		}
		c := t.conns[t.pace.turn]
		if !t.add(c) {
			break
		}
		c.due.push(due)
		t.pace.n++
		t.pace.turn = (t.pace.turn + 1) % len(t.conns)
		touched++
	}
	if t.waiting > maxWaiting {
		return 0, fmt.Errorf("loadgen: %s: %d requests are unanswered: it cannot keep up with %.0f requests a second", t.Addr, t.waiting, t.Rate)
	}
	for i := range min(touched, len(t.conns)) {
		if c := t.conns[(first+i)%len(t.conns)]; !c.held {
			if err := t.write(c); err != nil {
				return 0, fmt.Errorf("loadgen: %s: %w", t.Addr, err)
			}
		}
	}
	if t.over {
		return time.Hour, nil
	}
	return t.pace.due() - time.Since(t.began), nil
}

// dues is a queue of instants. It grows to what it once held, and allocates nothing after that.
type dues struct {
	ring []time.Duration // its length is a power of two
	head int
	n    int
}

func (d *dues) push(v time.Duration) {
	if d.n == len(d.ring) {
		ring := make([]time.Duration, max(64, 2*len(d.ring)))
		for i := range d.n {
			ring[i] = d.ring[(d.head+i)&(len(d.ring)-1)]
		}
		d.ring, d.head = ring, 0
	}
	d.ring[(d.head+d.n)&(len(d.ring)-1)] = v
	d.n++
}

func (d *dues) pop() time.Duration {
	v := d.ring[d.head]
	d.head = (d.head + 1) & (len(d.ring) - 1)
	d.n--
	return v
}
