package server

import (
	"crypto/rand"
	"encoding/hex"
	"sync"
	"sync/atomic"
	"time"

	"github.com/understudy-kv/understudy/internal/engine"
)

// stats count since the process started, or since CONFIG RESETSTAT.
type stats struct {
	connections atomic.Uint64 // accepted, those that were refused included
	rejected    atomic.Uint64 // refused because of maxclients
	netIn       atomic.Uint64 // bytes
	netOut      atomic.Uint64
}

func (s *Server) resetStats() {
	for _, c := range []*atomic.Uint64{&s.stats.connections, &s.stats.rejected, &s.stats.netIn, &s.stats.netOut} {
		c.Store(0)
	}
	s.ks.ResetStats()
}

// rates are what happened in the last second.
type rates struct {
	mu           sync.Mutex
	at           time.Time
	commands     uint64
	in, out      uint64
	perSecond    float64
	inKB, outKB  float64
	peak         uint64 // most memory that was seen
	commandsFrom *atomic.Uint64
}

func (r *rates) sample(now time.Time, s *stats) {
	r.mu.Lock()
	defer r.mu.Unlock()
	commands, in, out := r.commandsFrom.Load(), s.netIn.Load(), s.netOut.Load()
	since := func(now, before uint64) float64 { return float64(now - min(before, now)) } // RESETSTAT sets back
	if d := now.Sub(r.at).Seconds(); !r.at.IsZero() && d > 0 {
		r.perSecond = since(commands, r.commands) / d
		r.inKB, r.outKB = since(in, r.in)/d/1024, since(out, r.out)/d/1024
	}
	r.at, r.commands, r.in, r.out = now, commands, in, out
	r.peak = max(r.peak, usedMemory())
}

func (r *rates) get() (perSecond, inKB, outKB float64, peak uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.peak = max(r.peak, usedMemory())
	return r.perSecond, r.inKB, r.outKB, r.peak
}

// keyCounts remembers how many keys there are. Counting goes through all of them, so INFO counts again only when the
// last count is older than twenty times what it took: asking often costs at most a twentieth of a core. Nobody waits
// long for it where there is an older count to tell.
type keyCounts struct {
	mu      sync.Mutex
	at      time.Time // of last
	took    time.Duration
	last    engine.KeyCount
	running chan struct{} // closed behind the count that is going on; nil if none is
}

// countPatience is how long INFO waits for a new count.
const countPatience = 250 * time.Millisecond

// get returns the counts and how old they are, if there are any. A count is begun as a goroutine of done, which whoever calls belongs to.
func (k *keyCounts) get(done *sync.WaitGroup, count func() (engine.KeyCount, error)) (c engine.KeyCount, age time.Duration, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	first := k.at.IsZero()
	if first || time.Since(k.at) >= 20*k.took {
		if k.running == nil {
			k.running = make(chan struct{})
			// Started here, once at a time. It ends with its count, which the end of a shard cuts short, and is waited for with the
			// connections.
			done.Go(func() { k.count(count) })
		}
		k.await(first)
	}
	return k.last, time.Since(k.at), !k.at.IsZero()
}

// await waits for the count that is going on, without the lock: to its end, or for a while.
func (k *keyCounts) await(end bool) {
	running := k.running
	k.mu.Unlock()
	defer k.mu.Lock()
	var late <-chan time.Time
	if !end {
		timer := time.NewTimer(countPatience)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-running:
	case <-late:
	}
}

func (k *keyCounts) count(count func() (engine.KeyCount, error)) {
	begun := time.Now()
	c, err := count()
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil { // otherwise a shard is being closed or replaced: the next one will tell
		k.at, k.took, k.last = time.Now(), time.Since(begun), c
	}
	close(k.running)
	k.running = nil
}

// newRunID draws the 40 hex digits that tell one run of a process from another.
func newRunID() string {
	var b [20]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
