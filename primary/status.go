package primary

import (
	"strings"
	"time"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/internal/status"
	"github.com/understudy-kv/understudy/slottable"
)

// Status reports on one shard and its replicas, as of now. The log's fsync policy is the caller's to fill in.
func (s *Server) Status(shard int) status.Shard {
	p := s.ports[shard]
	now := s.now()
	log := p.Log()
	at := p.Position()
	counters := s.Counters(shard)
	out := status.Shard{
		Shard: shard, Position: at.String(), Offset: at.Offset, Lineage: strings.Fields(p.Lineage().String()),
		Log: s.logStatus(p, log, now), FullSyncs: counters.FullSyncs, Resumes: counters.Resumes, Rewinds: counters.Rewinds,
		Refusals: counters.Refusals, Unsettled: !p.Settled(),
	}
	if err := p.Err(); err != nil {
		out.Error = err.Error()
	}
	s.mu.Lock()
	slots := s.mu.table.Slots(shard)
	sessions := make(map[slottable.Session]*session, len(slots))
	for _, slot := range slots {
		if c := s.mu.sessions[slot.Session]; c != nil {
			sessions[slot.Session] = c
		}
	}
	s.mu.Unlock()
	for i := range slots {
		out.Slots = append(out.Slots, s.slotStatus(&slots[i], sessions[slots[i].Session], log, out.Log, now))
	}
	return out
}

func (s *Server) logStatus(p *port, log *backlog.Log, now time.Duration) status.Log {
	b := log.Bounds()
	out := status.Log{
		Oldest: b.Oldest, MemoryFirst: b.MemoryFirst, Published: b.Published, Next: b.Next, Durable: b.Durable,
		Bytes: b.Bytes, MemoryBytes: b.MemoryBytes, Seconds: -1,
	}
	out.MemoryLimit, out.Keep, out.Disk = s.opts.Limits()
	if from, ok := p.rate.since(); ok && now > from.at && from.published < b.Published {
		if bytes := log.BytesFrom(from.published); bytes > 0 {
			out.WriteRate = float64(bytes) / (now - from.at).Seconds()
			out.Seconds = float64(b.Bytes) / out.WriteRate
		}
	}
	return out
}

// States of a slot.
const (
	slotOnline   = "online"
	slotSyncing  = "syncing" // in a full sync, or undoing a surplus
	slotDetached = "detached"
)

func (s *Server) slotStatus(slot *slottable.Slot, c *session, log *backlog.Log, l status.Log, now time.Duration) status.Slot {
	out := status.Slot{
		Replica: slot.Replica.String(), Address: slot.Address, State: slotOnline,
		Received: slot.Ack.Received, Applied: slot.Ack.Applied, Durable: slot.Ack.Durable, Sent: slot.Sent,
		AnnounceBase: slot.AnnounceBase, LastAckAge: (now - slot.Seen).Seconds(), ReapedIn: -1, SecondsLeft: -1,
	}
	if slot.Announce != "" {
		out.Address = slot.Announce
	}
	has := slot.Ack.Applied
	if !slot.Acked {
		has = slot.Start
	}
	out.LagMutations = l.Published - min(has, l.Published)
	out.LagBytes = log.BytesFrom(has)
	out.RetainedBytes = log.BytesFrom(slot.Need)
	// A slot is lost when what it needs and what is written meanwhile overrun the larger of the log's two bounds.
	out.BytesLeft = max(0, max(l.Keep, l.Disk)-out.RetainedBytes)
	if slot.Need < l.Oldest {
		out.BytesLeft = 0
	}
	if l.WriteRate > 0 {
		out.SecondsLeft = float64(out.BytesLeft) / l.WriteRate
	}
	switch {
	case !slot.Attached():
		out.State = slotDetached
		out.DetachedFor = (now - slot.Detached).Seconds()
		out.ReapedIn = max(0, (s.ReconnectWindow() - (now - slot.Detached)).Seconds())
	case slot.Syncing || slot.Undoing || slot.Settles > 0:
		out.State = slotSyncing
	}
	if c != nil {
		out.Sent = max(out.Sent, c.sent.Load())
		if slot.Syncing {
			out.Sync = c.syncStatus(slot)
		}
	}
	return out
}

func (c *session) syncStatus(slot *slottable.Slot) *status.Sync {
	out := &status.Sync{
		Reason: string(c.verdict.Reason), Snapshot: slot.Snapshot.String(), Bytes: c.progress.bytes.Load(), Total: c.progress.total.Load(), ETA: -1,
	}
	began := c.progress.began.Load()
	if took := time.Since(time.Unix(0, began)).Seconds(); began != 0 && took > 0 {
		out.Rate = float64(out.Bytes-min(c.progress.first.Load(), out.Bytes)) / took
		if out.Rate > 0 {
			out.ETA = float64(out.Total-min(out.Bytes, out.Total)) / out.Rate
		}
	}
	return out
}
