package replica

import (
	"sync"
	"time"
)

// pacer spreads the bytes of all full syncs of a node over time. A nil pacer limits nothing.
type pacer struct {
	rate int64 // bytes per second
	mu   struct {
		sync.Mutex
		next time.Duration // when the bytes read so far are paid for
	}
}

// piece is the most to read at once, so that the link never stands still for long: a twentieth of a second's worth.
func (p *pacer) piece(n int) int { return min(n, max(512, int(min(p.rate/20, 1<<20)))) }

// delay accounts for n bytes read at now and returns how long to wait before the next read.
func (p *pacer) delay(now time.Duration, n int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.next = max(p.mu.next, now) + time.Duration(float64(n)/float64(p.rate)*float64(time.Second))
	return p.mu.next - now
}
