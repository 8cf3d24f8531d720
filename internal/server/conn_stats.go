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
// last count is older than twenty times what it took: asking often costs at most a twentieth of a core.
type keyCounts struct {
	mu   sync.Mutex
	at   time.Time
	took time.Duration
	last engine.KeyCount
}

func (k *keyCounts) get(count func() (engine.KeyCount, error)) engine.KeyCount {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	if !k.at.IsZero() && now.Sub(k.at) < 20*k.took {
		return k.last
	}
	c, err := count()
	if err != nil {
		return k.last // a shard is being closed or replaced: the next one will tell
	}
	k.at, k.took, k.last = time.Now(), time.Since(now), c
	return c
}

// newRunID draws the 40 hex digits that tell one run of a process from another.
func newRunID() string {
	var b [20]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
