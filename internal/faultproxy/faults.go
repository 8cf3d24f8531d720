package faultproxy

import (
	"fmt"
	"time"
)

// Direction is a way through the proxy.
type Direction int

// The two directions. The server is the target; the client is whoever dialled the proxy.
const (
	ToServer Direction = iota
	ToClient
)

// String names the direction.
func (d Direction) String() string {
	if d == ToServer {
		return "to server"
	}
	return "to client"
}

func (d Direction) opposite() Direction { return 1 - d }

// faults is what is wrong with one direction now. The zero value is a good link.
type faults struct {
	hole  bool
	delay time.Duration
	rate  int64  // bytes per second; 0 means no limit
	bytes uint64 // passed so far, over all connections
	cut   trigger
	gap   trigger
	flip  trigger
}

// trigger fires once, when the count of bytes passed reaches at.
type trigger struct {
	set bool
	at  uint64
}

// within reports how many of the next n bytes pass before the trigger, and whether it is there at all.
func (t trigger) within(bytes uint64, n int) (before int, fires bool) {
	if !t.set || t.at < bytes || t.at-bytes > uint64(n) {
		return n, false
	}
	return int(t.at - bytes), true
}

// verdict says what happens to a piece of the stream: how many of its bytes pass, which of them is damaged (-1 for
// none), and whether the link is cut behind them.
type verdict struct {
	pass int
	flip int
	cut  bool
}

// judge decides about the next n bytes and counts those that pass.
func (f *faults) judge(n int) verdict {
	v := verdict{flip: -1}
	if _, fires := f.gap.within(f.bytes, n); fires {
		f.gap, f.hole = trigger{}, true
	}
	if v.pass, v.cut = f.cut.within(f.bytes, n); v.cut {
		f.cut = trigger{}
	}
	if i, fires := f.flip.within(f.bytes, v.pass); fires && i < v.pass {
		v.flip, f.flip = i, trigger{}
	}
	f.bytes += uint64(v.pass)
	return v
}

// BlackHole makes one direction swallow everything, or lets it pass again.
func (p *Proxy) BlackHole(d Direction, on bool) { p.set(d, func(f *faults) { f.hole = on }) }

// HoleAfter makes one direction swallow everything behind the piece, read at once, that carries the n-th byte from now: a
// message that is written at once passes as a whole.
func (p *Proxy) HoleAfter(d Direction, n uint64) {
	p.set(d, func(f *faults) { f.gap = trigger{set: true, at: f.bytes + n} })
}

// Delay holds every byte of one direction back for that long. Throughput stays what it was, as on a long line.
func (p *Proxy) Delay(d Direction, by time.Duration) { p.set(d, func(f *faults) { f.delay = by }) }

// Limit lets at most rate bytes a second through in one direction, for each connection. 0 lifts the limit.
func (p *Proxy) Limit(d Direction, rate int64) { p.set(d, func(f *faults) { f.rate = rate }) }

// CutAfter resets the connection that carries the n-th byte from now in that direction, right behind it: the receiver
// gets n more bytes, all told, and then the end of the stream. It fires once, and replaces a cut that
// has not come yet; later connections pass.
func (p *Proxy) CutAfter(d Direction, n uint64) {
	p.set(d, func(f *faults) { f.cut = trigger{set: true, at: f.bytes + n} })
}

// FlipAfter damages one bit of the byte that follows the next n bytes in that direction. It fires once, and replaces a flip
// that has not come yet.
func (p *Proxy) FlipAfter(d Direction, n uint64) {
	p.set(d, func(f *faults) { f.flip = trigger{set: true, at: f.bytes + n} })
}

// Heal ends every fault except those of bytes that have passed already.
func (p *Proxy) Heal() error {
	for _, d := range []Direction{ToServer, ToClient} {
		p.set(d, func(f *faults) { *f = faults{bytes: f.bytes} })
	}
	return p.Refuse(false)
}

// Bytes tells how many bytes have passed in that direction, over all connections.
func (p *Proxy) Bytes(d Direction) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.faults[d].bytes
}

// String describes the faults in force, for a test's log.
func (p *Proxy) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := fmt.Sprintf("proxy %s -> %s", p.Addr(), p.target(0))
	for d, f := range p.mu.faults {
		s += fmt.Sprintf("; %s: hole=%t delay=%s rate=%d passed=%d", Direction(d), f.hole, f.delay, f.rate, f.bytes)
	}
	return s
}

func (p *Proxy) set(d Direction, change func(*faults)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.mu.faults[d])
	p.wakeLocked()
}
