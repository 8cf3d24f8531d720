package replica

import (
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/wire"
)

// syncPhase is how far a full sync is:
//
//	FULLSYNC -> manifest -> staging -> fetching -> verifying -> (fetching ...) -> installing -> final -> streaming
//
// FETCH is sent when staging or verifying found something wanted, and the empty FETCH, which says that the replica has
// loaded everything and wants the stream, at the beginning of final. Each is answered by SNAPSHOT-END.
type syncPhase uint8

const (
	syncManifest   syncPhase = iota // waiting for MANIFEST
	syncStaging                     // the staging directory is being compared
	syncFetching                    // chunks come in
	syncVerifying                   // files are being checked and synced
	syncInstalling                  // the shard is loading them
	syncFinal                       // waiting for the SNAPSHOT-END behind which the stream begins
)

// syncState is a link's full sync.
type syncState struct {
	phase    syncPhase
	began    time.Duration
	manifest *wire.Manifest
	wants    []wire.Want    // what is being fetched: wants[0] is the file that comes now
	fetches  map[uint32]int // of damaged files
	figures  Progress
	old, new mark
}

// mark is a point of the transfer, to tell the rate from.
type mark struct {
	at    time.Duration
	bytes uint64
}

// Progress is how far a full sync is.
type Progress struct {
	Reason       wire.Reason
	Snapshot     wire.ID
	Bytes, Total uint64
	Rate         float64       // bytes per second, over the last five to ten seconds
	ETA          time.Duration // -1 when not known
}

func (s *syncState) allows(k EventKind) bool {
	switch k {
	case EventHeartbeat:
		return true
	case EventManifest:
		return s.phase == syncManifest
	case EventStaged:
		return s.phase == syncStaging
	case EventChunk:
		return s.phase == syncFetching
	case EventSnapshotEnd:
		return s.phase == syncFetching || s.phase == syncFinal
	case EventVerified:
		return s.phase == syncVerifying
	case EventInstalled:
		return s.phase == syncInstalling
	}
	return false
}

const rateWindow = 5 * time.Second

func (s *syncState) add(now time.Duration, n int64) {
	s.figures.Bytes = uint64(int64(s.figures.Bytes) + n)
	if now-s.new.at >= rateWindow {
		s.old, s.new = s.new, mark{now, s.figures.Bytes}
	}
}

func (s *syncState) progress(now time.Duration) Progress {
	p := s.figures
	p.ETA = -1
	if d := now - s.old.at; d > 0 && p.Bytes > s.old.bytes {
		p.Rate = float64(p.Bytes-s.old.bytes) / d.Seconds()
		p.ETA = time.Duration(float64(p.Total-p.Bytes) / p.Rate * float64(time.Second))
	}
	return p
}

func (l *Link) stepSync(ev Event) {
	s := &l.sync
	switch ev.Kind {
	case EventHeartbeat:
		l.figures.PrimaryOffset = max(l.figures.PrimaryOffset, ev.Heartbeat.Position.Offset)
	case EventManifest:
		if ev.Manifest.Snapshot != l.welcome.Snapshot {
			l.fail(fmt.Errorf("%w: a manifest of snapshot %s, FULLSYNC said %s", ErrProtocol, ev.Manifest.Snapshot, l.welcome.Snapshot))
			return
		}
		s.manifest, s.phase = ev.Manifest, syncStaging
		s.figures.Total = ev.Manifest.Bytes()
		l.do(Action{Kind: ActionStage, Welcome: l.welcome, Manifest: ev.Manifest})
	case EventStaged:
		if ev.Err != nil {
			l.fail(fmt.Errorf("%w: %w", ErrStaging, ev.Err))
			return
		}
		s.figures.Bytes = s.figures.Total - remaining(s.manifest, ev.Wants)
		s.old, s.new = mark{l.now, s.figures.Bytes}, mark{l.now, s.figures.Bytes}
		l.fetchOrInstall(ev.Wants)
	case EventChunk:
		l.chunk(ev)
	case EventSnapshotEnd:
		l.snapshotEnd(ev)
	case EventVerified:
		if ev.Err != nil {
			l.fail(fmt.Errorf("%w: %w", ErrStaging, ev.Err))
			return
		}
		l.damaged(ev.Wants)
	case EventInstalled:
		if ev.Err != nil {
			// The shard still has its old data and its old position (pitfall 19).
			l.fail(fmt.Errorf("%w: %w", ErrLoad, ev.Err))
			return
		}
		s.phase, s.wants = syncFinal, nil
		l.figures.Owes, l.cannot = false, false
		l.do(Action{Kind: ActionFetch, Snapshot: s.manifest.Snapshot})
	}
}

// remaining is how many bytes the wants ask for.
func remaining(m *wire.Manifest, wants []wire.Want) (n uint64) {
	for _, w := range wants {
		n += m.Files[w.File].Size - w.From
	}
	return n
}

func (l *Link) fetchOrInstall(wants []wire.Want) {
	s := &l.sync
	if len(wants) == 0 {
		s.phase = syncInstalling
		l.setState(StateLoading)
		if from, surplus := l.surplus(); surplus {
			l.do(Action{Kind: ActionSurplus, From: from})
		}
		l.do(Action{Kind: ActionInstall, Position: l.welcome.Position, Lineage: l.welcome.Lineage})
		return
	}
	s.phase, s.wants = syncFetching, wants
	l.setState(StateSyncing)
	l.do(Action{Kind: ActionFetch, Snapshot: s.manifest.Snapshot, Wants: wants})
}

// surplus tells from which offset on the replica has mutations that the primary does not have: from where the two
// histories part. That is the end, here or there, of the newest generation that both have. The replica may have begun
// generations of its own behind it, as a primary; what it wrote in them is surplus too. Without a generation in common
// nothing tells what was lost, and nothing is saved.
func (l *Link) surplus() (from uint64, is bool) {
	w, end := l.welcome, l.position.Offset
	mine := l.lineage.Until(end)
	if len(mine) == 0 {
		mine = wire.Lineage{{Generation: l.position.Generation}}
	}
	for i := len(mine) - 1; i >= 0; i-- {
		for j, theirs := range w.Lineage {
			if theirs.Generation != mine[i].Generation {
				continue
			}
			if j+1 < len(w.Lineage) {
				end = min(end, w.Lineage[j+1].First)
			} else {
				end = min(end, w.Next)
			}
			return end, l.position.Offset > end
		}
		end = min(end, mine[i].First)
	}
	return 0, false
}

// chunk accepts exactly the bytes that come next.
func (l *Link) chunk(ev Event) {
	s := &l.sync
	if len(s.wants) == 0 {
		l.fail(fmt.Errorf("%w: a chunk of file %d behind the last one that was asked for", ErrProtocol, ev.File))
		return
	}
	w := &s.wants[0]
	left := s.manifest.Files[w.File].Size - w.From
	if ev.File != w.File || ev.From != w.From || ev.Size == 0 || uint64(ev.Size) > left {
		l.fail(fmt.Errorf("%w: a chunk with %d bytes of file %d from %d, wanted were %d of file %d from %d",
			ErrProtocol, ev.Size, ev.File, ev.From, left, w.File, w.From))
		return
	}
	w.From += uint64(ev.Size)
	if uint64(ev.Size) == left {
		s.wants = s.wants[1:]
	}
	s.add(l.now, int64(ev.Size))
	l.figures.SnapshotBytes += uint64(ev.Size)
	l.progress = true
	l.do(Action{Kind: ActionStore})
}

func (l *Link) snapshotEnd(ev Event) {
	s := &l.sync
	switch {
	case ev.Snapshot != s.manifest.Snapshot:
		l.fail(fmt.Errorf("%w: the end of snapshot %s inside snapshot %s", ErrProtocol, ev.Snapshot, s.manifest.Snapshot))
	case len(s.wants) > 0:
		l.fail(fmt.Errorf("%w: the snapshot ended with %d files missing", ErrProtocol, len(s.wants)))
	case s.phase == syncFinal:
		l.log(hclog.Info, "full sync is complete", "position", l.welcome.Position, "bytes", s.figures.Total, "took", (l.now - s.began).Round(time.Millisecond))
		l.stream(l.welcome.Position.Offset, l.welcome.Position.Offset) // its files are durable
	default:
		s.phase = syncVerifying
		l.setState(StateLoading)
		l.do(Action{Kind: ActionVerify})
	}
}

// damaged has the damaged files fetched again, a few times. After that what was staged is not worth keeping: the
// primary's own copy is bad, or what lies between changes it.
func (l *Link) damaged(wants []wire.Want) {
	s := &l.sync
	for _, w := range wants {
		if s.fetches == nil {
			s.fetches = map[uint32]int{}
		}
		s.fetches[w.File]++
		f := s.manifest.Files[w.File]
		if s.fetches[w.File] > maxRefetches {
			l.do(Action{Kind: ActionDiscard})
			l.fail(fmt.Errorf("%w: %s, %d bytes", ErrDamaged, f.Name, f.Size))
			return
		}
		l.log(hclog.Warn, "a snapshot file is damaged and fetched again", "file", f.Name, "bytes", f.Size)
		s.add(l.now, -int64(f.Size))
	}
	l.fetchOrInstall(wants)
}
