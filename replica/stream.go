package replica

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/wire"
)

// dialed begins the handshake. The position is what the shard has now, after everything that an earlier session left in
// the inbox was applied, and nothing moves it until the session does (pitfall 1).
func (l *Link) dialed(ev Event) {
	l.setState(StateHandshake)
	l.began, l.position, l.lineage, l.durable = l.now, ev.Position, ev.Lineage, ev.Durable
	l.keptAlive, l.heard, l.quietSince = l.now, 0, l.now
	l.figures.Heartbeats, l.figures.Began = 0, l.now
	// A full sync that was begun goes on: what was staged is worth more than what a rewind would save.
	l.settles, l.offered = ev.Settles, ev.Rewinds && ev.Settles.IsZero() && ev.Snapshot.IsZero() && !l.cannot
	l.do(Action{Kind: ActionHello, Position: ev.Position, Lineage: ev.Lineage, Snapshot: ev.Snapshot, Settles: l.settles, Rewinds: l.offered})
}

func (l *Link) refused(r *wire.Refusal) {
	l.figures.Refusals[r.Code]++
	l.figures.LastRefusal = fmt.Sprintf("%s: %s", r.Code, r.Text)
	l.fail(&RefusedError{*r})
}

// welcomed judges the primary's answer before anything is touched.
func (l *Link) welcomed(w *wire.Welcome) {
	l.answered, l.welcome = true, w
	switch {
	case w.Version != wire.Version:
		l.fail(fmt.Errorf("%w: it answers in version %d, this is version %d", ErrProtocol, w.Version, wire.Version))
	case w.Shard != l.opts.Shard:
		l.fail(fmt.Errorf("%w: it answers for shard %d, asked was %d", ErrProtocol, w.Shard, l.opts.Shard))
	case !l.opts.Node.IsZero() && slices.Contains(w.Path, l.opts.Node):
		l.fail(fmt.Errorf("%w: it is node %s, %d nodes below this one; promote it first, or follow another", ErrLoop, w.Node, len(w.Path)-1-slices.Index(w.Path, l.opts.Node)))
	case w.Shards == 0 || w.Shards > 256:
		l.fail(fmt.Errorf("%w: it says it has %d shards", ErrProtocol, w.Shards))
	case w.Shards != l.opts.Shards && w.Reason == "":
		l.fail(fmt.Errorf("%w: it resumes with %d shards, this replica has %d", ErrProtocol, w.Shards, l.opts.Shards))
	case w.Shards != l.opts.Shards && !l.opts.Learns:
		l.fail(fmt.Errorf("%w: %d, this replica has %d", ErrLayout, w.Shards, l.opts.Shards))
	case w.Shards != l.opts.Shards:
		l.log(hclog.Info, "learned the primary's shard count", "shards", w.Shards, "had", l.opts.Shards)
		l.do(Action{Kind: ActionLayout, Shards: w.Shards})
	default:
		l.begin()
	}
}

// laidOut goes on with the answer that told the shard count, now that there is a data set for it.
func (l *Link) laidOut(ev Event) {
	if ev.Err != nil {
		l.fail(fmt.Errorf("%w: %w", ErrStaging, ev.Err))
		return
	}
	l.opts.Shards = l.welcome.Shards
	if ev.Resumable {
		// The new data set was begun earlier: HELLO again, with what it has.
		l.progress = true
		l.fail(errLaidOut)
		return
	}
	l.position = wire.Position{}
	l.begin()
}

// begin starts what the primary's answer says.
func (l *Link) begin() {
	w := l.welcome
	if !w.Lineage.Contains(w.Position, w.Next) {
		l.fail(fmt.Errorf("%w: its position %s is not on its lineage", ErrProtocol, w.Position))
		return
	}
	switch {
	case w.Rewind:
		l.rewind()
		return
	case w.Reason == "":
		l.resume()
		return
	}
	l.do(Action{Kind: ActionPlace, Welcome: w})
	// Pitfall 18, and the design's "refuses to be wiped": an empty primary is no source.
	empty := w.Next == 0 && w.Position.Offset == 0
	if l.position.Offset > 0 && empty && !w.Lineage.Has(l.position.Generation) && !l.opts.AcceptEmptyPrimary {
		l.fail(fmt.Errorf("%w: it is at offset 0 of generation %s, this replica is at %s; if that primary is right, start the replica with --accept-empty-primary",
			ErrEmptyPrimary, w.Position.Generation, l.position))
		return
	}
	if l.opts.Format != 0 && w.Format > l.opts.Format {
		// Found before the transfer, not behind it (pitfall 34).
		l.fail(fmt.Errorf("%w: its files have format %d, this replica reads up to %d: upgrade the replica", ErrLoad, w.Format, l.opts.Format))
		return
	}
	l.figures.FullSyncs[w.Reason]++
	l.figures.Owes = true
	l.figures.LastResync = "fullsync:" + string(w.Reason)
	l.figures.PrimaryOffset = w.Next
	l.keptAlive = l.now
	l.sync = syncState{phase: syncManifest, began: l.now}
	l.sync.figures.Reason, l.sync.figures.Snapshot = w.Reason, w.Snapshot
	l.setState(StateSyncing)
	l.log(hclog.Info, "full sync", "reason", w.Reason, "snapshot", w.Snapshot, "position", w.Position, "primary_offset", w.Next)
}

func (l *Link) resume() {
	w := l.welcome
	// The primary may name the position by another generation: that of a promotion without a write behind it counts for nothing.
	shared := w.Lineage.Contains(l.position, w.Next) || l.lineage.Contains(w.Position, l.position.Offset)
	if l.position.IsZero() || w.Position.Offset != l.position.Offset || !shared {
		l.fail(fmt.Errorf("%w: it resumes at %s, this replica is at %s", ErrProtocol, w.Position, l.position))
		return
	}
	if s := l.settles; !s.IsZero() && !w.Lineage.Contains(s, math.MaxUint64) {
		l.fail(fmt.Errorf("%w: it resumes a replica whose data is whole from %s on, which is not on its lineage %s", ErrProtocol, s, w.Lineage))
		return
	}
	l.cannot = false
	l.figures.Resumes++
	if l.figures.LastResync = "resume"; l.rewound || !l.settles.IsZero() {
		l.figures.LastResync = "rewind" // of which this is the rest
	}
	l.rewound = false
	l.do(Action{Kind: ActionPlace, Welcome: w})
	l.do(Action{Kind: ActionAdopt, Lineage: w.Lineage})
	l.stream(l.position.Offset, l.durable)
	l.log(hclog.Info, "resumed", "position", l.position, "primary_offset", w.Next)
}

// stream begins the stream of frames at the offset. What is there is acked at once: when nothing follows, nothing else
// would tell (pitfall 21).
func (l *Link) stream(from, durable uint64) {
	l.setState(StateStreaming)
	l.asked, l.ackSoon = 0, false
	l.received, l.applied, l.durable, l.digest = from, from, min(durable, from), 0
	l.figures.PrimaryOffset = max(l.welcome.Next, from)
	l.figures.Heard, l.figures.Alarm, l.figures.Owes = l.now, nil, false
	l.caughtUp()
	l.ack()
}

// frame accepts a frame exactly where the stream is, and nowhere else.
func (l *Link) frame(ev Event) {
	switch {
	case ev.First > l.received:
		l.fail(fmt.Errorf("%w: the next is %d, a frame with [%d, %d) came", ErrGap, l.received, ev.First, ev.Next))
		return
	case ev.First < l.received:
		l.fail(fmt.Errorf("%w: the next is %d, a frame with [%d, %d) came", ErrRepeat, l.received, ev.First, ev.Next))
		return
	}
	l.received = ev.Next
	l.digest = l.digest.Add(ev.CRC)
	l.progress = true
	f := &l.figures
	f.Frames++
	f.Mutations += ev.Next - ev.First
	f.Bytes += uint64(ev.Size)
	f.Pending -= min(f.Pending, uint64(ev.Size))
	f.PrimaryOffset = max(f.PrimaryOffset, l.received)
	f.Heard = l.now
	l.do(Action{Kind: ActionApply})
}

// heartbeat takes no offset (pitfall 4); it tells how far the primary is, and whether both ends saw the same stream.
func (l *Link) heartbeat(h *wire.Heartbeat) {
	switch {
	case h.Sent > l.received:
		l.fail(fmt.Errorf("%w: the next is %d, the primary has sent up to %d", ErrGap, l.received, h.Sent))
		return
	case h.Sent < l.received:
		l.fail(fmt.Errorf("%w: the next is %d, the primary says it has sent up to %d", ErrRepeat, l.received, h.Sent))
		return
	case h.Digest != l.digest:
		l.fail(fmt.Errorf("%w: %016x here, %016x there, at offset %d", ErrDigest, l.digest, h.Digest, l.received))
		return
	}
	l.hear(h)
	l.progress = true
	l.caughtUp()
	l.ack()
}

func (l *Link) hear(h *wire.Heartbeat) {
	f := &l.figures
	f.PrimaryOffset = max(f.PrimaryOffset, h.Position.Offset)
	f.Pending = h.Pending
	f.PrimaryClock, f.ClockAt, f.Heard = h.Clock, l.now, l.now
	f.Heartbeats++
	f.AllHeartbeats++
}

func (l *Link) wasApplied(ev Event) {
	l.applied = max(l.applied, min(ev.Applied, l.received))
	l.setDurable(ev.Durable)
	l.caughtUp()
	switch {
	case l.now-l.ackedAt >= l.opts.AckEvery, l.owesAnswer():
		l.ack()
	case !l.ackSoon:
		// While frames come, most are acked in passing before that. The timer is for the last of them, and wakes another thread, so it is
		// not to fire often.
		l.ackSoon = true
		l.do(Action{Kind: ActionAckSoon, Wait: 2 * l.opts.AckEvery})
	}
}

// ask is the primary's: somebody there waits for everything before the offset. An ack of every frame would cost both ends more than
// the frame.
func (l *Link) ask(offset uint64) {
	if l.asked = max(l.asked, offset); l.state == StateStreaming && l.owesAnswer() {
		l.ack()
	}
}

// owesAnswer reports whether what the primary asked for is applied, and was not acked.
func (l *Link) owesAnswer() bool { return l.acked.Applied < l.asked && l.asked <= l.applied }

// ackDue acks what has been applied since the last ack.
func (l *Link) ackDue() {
	l.ackSoon = false
	if l.state == StateStreaming && l.acked.Applied < l.applied {
		l.ack()
	}
}

// setDurable never claims more than what is applied, nor less than before.
func (l *Link) setDurable(d uint64) { l.durable = max(l.durable, min(d, l.applied)) }

func (l *Link) caughtUp() {
	if l.applied == l.figures.PrimaryOffset {
		l.figures.CaughtUpAt, l.figures.EverCaughtUp = l.now, true
	}
}

func (l *Link) ack() {
	l.acked = wire.Ack{Received: l.received, Applied: l.applied, Durable: l.durable}
	l.ackedAt = l.now
	l.do(Action{Kind: ActionAck, Ack: l.acked})
}

// tick judges silence and sends what is due.
func (l *Link) tick(ev Event) {
	if !l.live() {
		return
	}
	silent, limit := l.silent(ev), l.opts.Silence
	if l.awaitsAnswer() {
		limit += answerExtra
	}
	// A session that does not read cannot hear (pitfalls 38 and 32).
	if !ev.Paused && silent >= limit {
		l.fail(fmt.Errorf("%w for %s in state %s", ErrSilent, silent, l.state))
		return
	}
	switch l.state {
	case StateStreaming:
		l.setDurable(ev.Durable)
		now := wire.Ack{Received: l.received, Applied: l.applied, Durable: l.durable}
		if now != l.acked || l.now-l.ackedAt >= keepaliveEvery {
			l.ack()
		}
	case StateHandshake, StateSyncing, StateLoading, StateRewinding:
		if !l.awaitsAnswer() && l.now-l.keptAlive >= keepaliveEvery {
			l.keptAlive = l.now
			l.do(Action{Kind: ActionKeepalive})
		}
	}
}

// awaitsAnswer reports whether HELLO was not answered yet.
func (l *Link) awaitsAnswer() bool { return l.state == StateHandshake && !l.answered }

// silent is for how long the primary has said nothing, while this process ran: one that was stopped, or whose machine was, could not hear,
// and where both ends were, neither could say anything.
func (l *Link) silent(ev Event) time.Duration {
	// While HELLO is not answered, bytes are not an answer; and a primary may take a checkpoint before it answers.
	if ev.Heard != l.heard && !l.awaitsAnswer() {
		l.heard, l.quietSince = ev.Heard, max(ev.Heard, l.began)
	}
	l.quietSince = min(l.quietSince+ev.Lost, l.now)
	return l.now - l.quietSince
}
