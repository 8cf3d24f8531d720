package replica

import (
	"fmt"
	"time"

	"github.com/understudy-kv/understudy/internal/status"
	"github.com/understudy-kv/understudy/wire"
)

// beatsMissed is how long a caught-up link may hear nothing before its lag is told as growing: heartbeats come every
// second, and a heartbeat of long ago says nothing about now (pitfall 36).
const beatsMissed = 2 * time.Second

// Lag is how far a node is behind its primary. Each figure is the worst shard's own: never a sum, and never a
// difference of maxima, which a cold shard that lags would vanish in (pitfall 36).
type Lag struct {
	Mutations uint64  // committed at the primary, as far as heard, and not applied here
	Bytes     int64   // of frames, waiting here and not sent yet
	Millis    float64 // since the primary committed what was applied last, by the primary's clock; 0 when caught up
	Streaming bool    // all links are up; otherwise Mutations and Bytes are as of the last word of the primary
}

// Lag is the worst shard's.
func (f *Follower) Lag() Lag { return lagOf(f.Status()) }

func lagOf(shards []status.Shard) Lag {
	l := Lag{Streaming: len(shards) > 0}
	for _, s := range shards {
		l.Mutations = max(l.Mutations, s.Link.LagMutations)
		l.Bytes = max(l.Bytes, s.Link.LagBytes)
		l.Millis = max(l.Millis, s.Link.LagMillis)
		l.Streaming = l.Streaming && !s.Link.Stale
	}
	return l
}

// Streaming reports whether every link is up and streams.
func (f *Follower) Streaming() bool {
	f.mu.Lock()
	runners, complete := append([]*runner(nil), f.mu.runners...), f.mu.shards > 0 && len(f.mu.runners) == f.mu.shards && !f.mu.pending
	f.mu.Unlock()
	for _, r := range runners {
		complete = complete && r.streams()
	}
	return complete
}

// Syncing reports whether a full sync, or a rejoin by difference, of any shard is under way.
func (f *Follower) Syncing() bool {
	for _, r := range f.runners() {
		r.mu.Lock()
		state := r.mu.link.state
		r.mu.Unlock()
		if state == StateSyncing || state == StateLoading || state == StateRewinding {
			return true
		}
	}
	return false
}

// Status tells of every shard what the follower knows: all but the Log part.
func (f *Follower) Status() []status.Shard {
	runners := f.runners()
	out := make([]status.Shard, len(runners))
	f.mu.Lock()
	alarm := f.mu.alarm
	f.mu.Unlock()
	for i, r := range runners {
		out[i] = r.status(f.now())
		if alarm != nil && out[i].Error == "" {
			out[i].Error = alarm.Error()
		}
	}
	return out
}

func (r *runner) status(now time.Duration) status.Shard {
	r.mu.Lock()
	shard := r.mu.shard
	r.mu.Unlock()
	// The shard is read before the link, so that nothing counts as applied that does not count as received.
	at, commit := wire.Position{}, int64(0)
	if shard != nil {
		at, commit = shard.Position(), shard.CommitMicros()
	}
	r.mu.Lock()
	g := r.mu.link.Figures(now)
	session := r.mu.session
	r.mu.Unlock()

	s := status.Shard{Shard: r.id, Position: "none", Lineage: []string{}, FullSyncs: map[string]uint64{}, Refusals: map[string]uint64{}, Resumes: g.Resumes, Rewinds: g.Rewinds}
	for reason, n := range g.FullSyncs {
		s.FullSyncs[string(reason)] = n
	}
	for code, n := range g.Refusals {
		s.Refusals[string(code)] = n
	}
	if g.Alarm != nil {
		s.Error = g.Alarm.Error()
	}
	if shard != nil {
		s.Position, s.Offset = at.String(), at.Offset
		for _, e := range shard.Lineage() {
			s.Lineage = append(s.Lineage, fmt.Sprintf("%s@%d", e.Generation, e.First))
		}
		if err := shard.Err(); err != nil {
			s.Error = err.Error()
		}
	}
	applied := s.Offset
	l := &status.Link{
		State: g.State.String(), Received: max(g.Received, applied), Applied: applied, Durable: g.Durable, PrimaryOffset: g.PrimaryOffset,
		LagMillis: lagMillis(g, now, applied, commit), LastIO: -1, LastResync: g.LastResync, LastRefusal: g.LastRefusal,
		Stale: g.State != StateStreaming, Frames: g.Frames, Mutations: g.Mutations, Bytes: g.Bytes, SnapshotBytes: g.SnapshotBytes,
	}
	if g.State != StateStreaming {
		l.Received, l.DownFor = applied, (now - g.Since).Seconds()
	}
	if g.PrimaryOffset > applied {
		l.LagMutations = g.PrimaryOffset - applied
	}
	l.LagBytes = int64(g.Pending)
	if session != nil {
		l.InboxBytes = session.inbox.size()
		l.LagBytes += l.InboxBytes
		l.LastIO = (now - time.Duration(session.heard.Load())).Seconds()
	}
	if g.LastError != nil {
		l.LastError = g.LastError.Error()
	}
	if p := g.Sync; p != nil {
		l.Sync = &status.Sync{Reason: string(p.Reason), Snapshot: p.Snapshot.String(), Bytes: p.Bytes, Total: p.Total, Rate: p.Rate, ETA: -1}
		if p.ETA >= 0 {
			l.Sync.ETA = p.ETA.Seconds()
		}
	}
	s.Link = l
	return s
}

// lagMillis is how old what readers see may be. A link that has everything lags by nothing while it hears heartbeats.
// One that has not lags by the time since the primary committed what was applied last, on the primary's clock; but by no
// more than the time since it last had everything, or an idle hour would count.
func lagMillis(g Figures, now time.Duration, applied uint64, commitMicros int64) float64 {
	if g.State == StateStreaming && applied >= g.PrimaryOffset && now-g.Heard <= beatsMissed {
		return 0
	}
	lag := now // since the start
	if g.EverCaughtUp {
		lag = now - g.CaughtUpAt
	}
	if commitMicros > 0 && g.PrimaryClock > 0 {
		primaryNow := g.PrimaryClock + (now - g.ClockAt).Microseconds()
		behind := time.Duration(max(0, primaryNow-commitMicros)) * time.Microsecond
		if behind < lag || !g.EverCaughtUp {
			lag = behind
		}
	}
	return float64(lag.Microseconds()) / 1000
}
