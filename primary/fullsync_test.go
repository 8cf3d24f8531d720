package primary

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/xxh3"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/wire"
)

// staging is what a peer has fetched of a snapshot.
type staging struct {
	welcome  wire.Welcome
	manifest wire.Manifest
	files    [][]byte
}

// begin says HELLO with nothing, and reads up to the manifest.
func (s *stage) beginSync(p *peer, replica byte, snapshot wire.ID) *staging {
	s.t.Helper()
	h := hello(replica, wire.Position{})
	h.Snapshot = snapshot
	p.send(wire.AppendHello(nil, h))
	st := &staging{welcome: p.welcome(wire.KindFullSync)}
	m, err := wire.ParseManifest(p.until(wire.KindManifest).Payload)
	if err != nil {
		s.t.Fatal(err)
	}
	if m.Snapshot != st.welcome.Snapshot || len(m.Files) != len(checkpointFiles) {
		s.t.Fatalf("manifest %+v", m)
	}
	st.manifest, st.files = m, make([][]byte, len(m.Files))
	return st
}

// fetch asks for what is missing and reads at most limit bytes of it; it reports whether SNAPSHOT-END came.
func (p *peer) fetch(st *staging, limit int) bool {
	p.t.Helper()
	f := wire.Fetch{Snapshot: st.manifest.Snapshot}
	for i, file := range st.manifest.Files {
		if have := uint64(len(st.files[i])); have < file.Size {
			f.Wants = append(f.Wants, wire.Want{File: uint32(i), From: have})
		}
	}
	p.send(wire.AppendFetch(nil, f))
	for {
		fr := p.next()
		switch fr.Kind {
		case wire.KindChunk:
			c, err := wire.ParseChunk(fr.Payload)
			if err != nil {
				p.t.Fatal(err)
			}
			if uint64(len(st.files[c.File])) != c.From || len(c.Data) == 0 {
				p.t.Fatalf("a chunk of file %d with %d bytes from %d, have %d", c.File, len(c.Data), c.From, len(st.files[c.File]))
			}
			st.files[c.File] = append(st.files[c.File], c.Data...)
			if limit -= len(c.Data); limit <= 0 {
				return false
			}
		case wire.KindSnapshotEnd:
			return true
		case wire.KindHeartbeat:
		default:
			p.t.Fatalf("a %s frame", fr.Kind)
		}
	}
}

// verify compares what was fetched with the manifest and with what the shard wrote.
func (st *staging) verify(t *testing.T) {
	t.Helper()
	for i, f := range st.manifest.Files {
		if uint64(len(st.files[i])) != f.Size || xxh3.Hash128(st.files[i]).Bytes() != f.Sum && f.Size > 0 {
			t.Errorf("%s: %d bytes of %d, or another sum", f.Name, len(st.files[i]), f.Size)
		}
		want := make([]byte, checkpointFiles[f.Name])
		for j := range want {
			want[j] = checkpointByte(f.Name, j)
		}
		if !bytes.Equal(st.files[i], want) {
			t.Errorf("%s differs", f.Name)
		}
	}
}

// finish sends the empty FETCH and expects the stream's first heartbeat at the snapshot's position.
func (p *peer) finish(st *staging) {
	p.t.Helper()
	p.send(wire.AppendFetch(nil, wire.Fetch{Snapshot: st.manifest.Snapshot}))
	p.until(wire.KindSnapshotEnd)
	if h := p.heartbeat(); h.Sent != st.welcome.Position.Offset || h.Digest != 0 {
		p.t.Fatalf("stream begins with %+v, want it at %s", h, st.welcome.Position)
	}
}

const everything = 1 << 30

func TestFullSyncThenStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{Format: 16})
		f := s.shards[0]
		f.write(20, 100)
		p := s.dial(0)
		st := s.beginSync(p, 1, wire.ID{})
		if w := st.welcome; w.Reason != wire.ReasonEmpty || w.Position != at(20) || w.Next != 20 || w.Format != 16 || w.Shards != 1 || w.Node != (wire.ID{0xAA}) {
			t.Fatalf("welcome %+v", w)
		}
		f.write(5, 100) // writes go on meanwhile
		if !p.fetch(st, everything) {
			t.Fatal("no end")
		}
		st.verify(t)
		if got := s.server.Status(0).Slots[0]; got.State != slotSyncing || got.Sync == nil || got.Sync.Bytes != got.Sync.Total || got.Sync.Total != 3_200_000 {
			t.Fatalf("slot %+v, sync %+v", got, got.Sync)
		}
		if floor, any := f.floor(); !any || floor != 20 {
			t.Fatalf("floor %d %v during the sync", floor, any)
		}
		p.finish(st)
		p.frames(20, 25)
		p.ack(25, 25, 25)
		synctest.Wait()
		if state, applied := s.slot(0); state != slotOnline || applied != 25 {
			t.Fatalf("slot is %s at %d", state, applied)
		}
		if c := s.server.Counters(0); c.FullSyncs["empty"] != 1 || c.Resumes != 0 {
			t.Fatalf("counters %+v", c)
		}
	})
}

// A replica that leaves at the answer to its HELLO, because its data set is being laid out anew for example, had no full
// sync; one that fetches has one, however often it fetches.
func TestFullSyncCountsFromItsFirstFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{})
		p := s.dial(0)
		s.beginSync(p, 1, wire.ID{})
		synctest.Wait()
		if c := s.server.Counters(0); len(c.FullSyncs) != 0 {
			t.Fatalf("counters %+v before anything was fetched", c)
		}
		p.conn.Close()
		p = s.dial(0)
		st := s.beginSync(p, 1, wire.ID{})
		p.fetch(st, everything)
		p.finish(st)
		synctest.Wait()
		if c := s.server.Counters(0); c.FullSyncs["empty"] != 1 {
			t.Fatalf("counters %+v after one full sync", c)
		}
	})
}

// A file may be asked for again, from its beginning: it was damaged on the way.
func TestFetchAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{})
		p := s.dial(0)
		st := s.beginSync(p, 1, wire.ID{})
		p.fetch(st, everything)
		for i := range st.files {
			st.files[i] = nil
		}
		p.fetch(st, everything)
		st.verify(t)
		p.finish(st)
	})
}

// If it is damaged here, the sync says so and does not go on for ever; the next one gets another snapshot.
func TestSnapshotDamagedAtThePrimary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{})
		p := s.dial(0)
		st := s.beginSync(p, 1, wire.ID{})
		path := s.fs.PathJoin("shard-0", "snapshots", st.manifest.Snapshot.String(), "files", "000001.sst")
		file, err := s.fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt([]byte{0xFF}, 12345); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		p.fetch(st, everything)
		for i := range st.files {
			st.files[i] = nil
		}
		f := wire.Fetch{Snapshot: st.manifest.Snapshot, Wants: []wire.Want{{File: 0}}}
		p.send(wire.AppendFetch(nil, f))
		if r := p.ending(); r.Code != wire.CodeFailed {
			t.Fatalf("ended with %q: %s", r.Code, r.Text)
		}
		synctest.Wait()
		p = s.dial(0)
		again := s.beginSync(p, 1, st.manifest.Snapshot)
		if again.manifest.Snapshot == st.manifest.Snapshot {
			t.Fatal("the damaged snapshot is served again")
		}
		p.fetch(again, everything)
		again.verify(t)
	})
}

// A sync that was cut goes on at the byte where it stopped: after a redial, and after a restart of the primary. Until
// then the log is kept for it, and at no time does it count as caught up (pitfall 9).
func TestCutSyncGoesOn(t *testing.T) {
	for _, restart := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t, 1, backlog.Options{}, ServerOptions{})
			f := s.shards[0]
			f.write(20, 100)
			p := s.dial(0)
			st := s.beginSync(p, 1, wire.ID{})
			if p.fetch(st, 1_500_000) {
				t.Fatal("nothing to cut")
			}
			p.close()
			synctest.Wait()
			if restart {
				s.end()
				s.begin()
			}
			if floor, any := f.floor(); !any || floor != 20 {
				t.Fatalf("floor %d %v while it is away", floor, any)
			}
			time.Sleep(59 * time.Second)
			synctest.Wait()
			f.write(5, 100)
			p = s.dial(0)
			again := s.beginSync(p, 1, st.manifest.Snapshot)
			if again.manifest.Snapshot != st.manifest.Snapshot || again.welcome.Position != at(20) {
				t.Fatalf("restart %v: snapshot %s at %s, was %s", restart, again.manifest.Snapshot, again.welcome.Position, st.manifest.Snapshot)
			}
			again.files = st.files
			p.fetch(again, everything)
			again.verify(t)
			p.finish(again)
			p.frames(20, 25)
			if f.checkpoints != 1 {
				t.Fatalf("restart %v: %d checkpoints", restart, f.checkpoints)
			}
		})
	}
}

// After the window nothing of a cut sync is left: no slot, no snapshot, no log.
func TestForgottenSyncIsRemoved(t *testing.T) {
	for _, restart := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t, 1, backlog.Options{}, ServerOptions{})
			p := s.dial(0)
			s.beginSync(p, 1, wire.ID{})
			p.close()
			synctest.Wait()
			if restart {
				s.end()
				s.begin()
			}
			time.Sleep(DefaultReconnectWindow + 3*keepEvery)
			synctest.Wait()
			names, err := s.fs.List(s.fs.PathJoin("shard-0", "snapshots"))
			if err != nil || len(names) != 0 {
				t.Fatalf("restart %v: snapshots left: %v, %v", restart, names, err)
			}
			if n := len(s.server.Status(0).Slots); n != 0 {
				t.Fatalf("%d slots left", n)
			}
		})
	}
}

// What a killed process left half made is removed at the next start.
func TestUnfinishedSnapshotIsRemoved(t *testing.T) {
	s := newStage(t, 1, backlog.Options{}, ServerOptions{})
	s.end()
	for _, name := range []string{"0123.tmp", "not-a-snapshot"} {
		if err := s.fs.MkdirAll(s.fs.PathJoin("shard-0", "snapshots", name, "files"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.begin()
	names, err := s.fs.List(s.fs.PathJoin("shard-0", "snapshots"))
	if err != nil || len(names) != 0 {
		t.Fatalf("left: %v, %v", names, err)
	}
}

// Joiners at the same time share one checkpoint, also while it is being made.
func TestJoinersShareACheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{})
		f := s.shards[0]
		f.slow = 3 * time.Second
		var ids []wire.ID
		found := make(chan wire.ID, 5)
		for i := range 5 {
			p := s.dial(0)
			go func() {
				st := s.beginSync(p, byte(i+1), wire.ID{})
				p.fetch(st, everything)
				st.verify(t)
				found <- st.manifest.Snapshot
			}()
			time.Sleep(time.Second)
		}
		for range 5 {
			ids = append(ids, <-found)
		}
		for _, id := range ids {
			if id != ids[0] {
				t.Fatalf("snapshots %v", ids)
			}
		}
		if f.checkpoints != 1 {
			t.Fatalf("%d checkpoints", f.checkpoints)
		}
	})
}

// Nobody is given a snapshot, shared or gone on with, that lies before what its history has in common with this one's: it has
// acked that, and would not have it for a while. Nor one of nothing, if it has something.
func TestNoSnapshotTakesAReplicaBack(t *testing.T) {
	for name, c := range map[string]struct {
		snapshot, promoted int
		has                wire.Position
		lineage            wire.Lineage
		want               wire.Position
		reason             wire.Reason
	}{
		"behind the fork":     {20, 30, at(35), history, wire.Position{Generation: wire.Generation{'b'}, Offset: 40}, wire.ReasonDiverged},
		"at the fork":         {30, 30, at(35), history, at(30), wire.ReasonDiverged},
		"nothing":             {0, 30, wire.Position{Generation: wire.Generation{'z'}, Offset: 5}, nil, wire.Position{Generation: wire.Generation{'b'}, Offset: 40}, wire.ReasonUnknownGeneration},
		"nothing for nothing": {0, 30, wire.Position{Generation: wire.Generation{'z'}}, nil, at(0), wire.ReasonUnknownGeneration},
		"unrelated":           {20, 30, wire.Position{Generation: wire.Generation{'z'}, Offset: 50}, nil, at(20), wire.ReasonUnknownGeneration},
	} {
		for _, goesOn := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, 1, backlog.Options{}, ServerOptions{})
				f := s.shards[0]
				f.write(c.snapshot, 10)
				st := s.beginSync(s.dial(0), 1, wire.ID{})
				f.write(c.promoted-c.snapshot, 10)
				f.begin('b')
				f.write(10, 10)
				h := hello(2, c.has)
				h.Lineage = c.lineage
				if goesOn {
					h.Snapshot = st.manifest.Snapshot
				}
				p := s.dial(0)
				p.send(wire.AppendHello(nil, h))
				w := p.welcome(wire.KindFullSync)
				if w.Position != c.want || w.Reason != c.reason || (w.Snapshot == st.manifest.Snapshot) != (c.want.Offset == uint64(c.snapshot)) {
					t.Errorf("%s: a replica at %s syncs in full from %s for the reason %s, want %s", name, c.has, w.Position, w.Reason, c.want)
				}
				synctest.Wait()
				if floor, any := f.floor(); !any || floor != min(uint64(c.snapshot), c.want.Offset) {
					t.Errorf("%s: the log is kept from %d on", name, floor)
				}
			})
		}
	}
}

// A checkpoint that takes too long refuses the replica in time, goes on, and serves it when it comes back.
func TestSlowCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{})
		f := s.shards[0]
		f.slow = 15 * time.Second
		p := s.dial(0)
		p.send(wire.AppendHello(nil, hello(1, wire.Position{})))
		began := time.Now()
		if r := p.ending(); r.Code != wire.CodeBusy || time.Since(began) > HandshakeTimeout {
			t.Fatalf("ended after %v with %q: %s", time.Since(began), r.Code, r.Text)
		}
		time.Sleep(8 * time.Second)
		p = s.dial(0)
		st := s.beginSync(p, 1, wire.ID{})
		p.fetch(st, everything)
		if f.checkpoints != 1 {
			t.Fatalf("%d checkpoints", f.checkpoints)
		}
	})
}

// A checkpoint that fails ends the session with the reason and harms nothing; the next attempt takes another one.
func TestCheckpointFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{})
		f := s.shards[0]
		f.broken = errors.New("no space left on device")
		good := s.resume(0, 9, 0)
		go good.keep(0)
		p := s.dial(0)
		p.send(wire.AppendHello(nil, hello(1, wire.Position{})))
		if r := p.ending(); r.Code != wire.CodeFailed {
			t.Fatalf("ended with %q: %s", r.Code, r.Text)
		}
		synctest.Wait()
		if slots := s.server.Status(0).Slots; len(slots) != 1 || slots[0].State != slotOnline {
			t.Fatalf("slots %+v", slots)
		}
		f.mu.Lock()
		f.broken = nil
		f.mu.Unlock()
		s.beginSync(s.dial(0), 1, wire.ID{})
	})
}

// The log outgrows its cap during the sync: it ends with the stated reason, and the snapshot, which nobody could go on
// from any more, is gone (pitfall 16).
func TestSyncLosesTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{Memory: 16 << 10, Keep: 16 << 10, Disk: 64 << 10, SegmentBytes: 4 << 10}, ServerOptions{})
		f := s.shards[0]
		f.write(20, 1000)
		p := s.dial(0)
		st := s.beginSync(p, 1, wire.ID{})
		f.write(40, 1000)
		f.trim()
		if oldest := f.log.Bounds().Oldest; oldest > 20 {
			t.Fatalf("the log begins at %d within its cap", oldest)
		}
		f.write(100, 1000)
		f.trim()
		if r := p.ending(); r.Code != wire.CodeEvicted {
			t.Fatalf("ended with %q: %s", r.Code, r.Text)
		}
		time.Sleep(2 * keepEvery)
		synctest.Wait()
		if names, err := s.fs.List(s.fs.PathJoin("shard-0", "snapshots")); err != nil || len(names) != 0 {
			t.Fatalf("snapshots left: %v, %v", names, err)
		}
		again := s.beginSync(s.dial(0), 1, st.manifest.Snapshot)
		if again.manifest.Snapshot == st.manifest.Snapshot || again.welcome.Position != at(160) {
			t.Fatalf("goes on with %s at %s", again.manifest.Snapshot, again.welcome.Position)
		}
	})
}

// During a sync neither side is silent: heartbeats while the replica installs, keepalives from it.
func TestSyncIsNotSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{})
		p := s.dial(0)
		st := s.beginSync(p, 1, wire.ID{})
		p.fetch(st, everything)
		for range 60 {
			p.heartbeat()
			p.send(wire.AppendControl(nil, wire.KindKeepalive, nil))
		}
		p.finish(st)
	})
}

func TestFetchesThatMakeNoSense(t *testing.T) {
	for name, wants := range map[string][]wire.Want{"file": {{File: 3}}, "byte": {{File: 0, From: 2_500_001}}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, 1, backlog.Options{}, ServerOptions{})
				p := s.dial(0)
				st := s.beginSync(p, 1, wire.ID{})
				p.send(wire.AppendFetch(nil, wire.Fetch{Snapshot: st.manifest.Snapshot, Wants: wants}))
				if r := p.ending(); r.Code != wire.CodeProtocol {
					t.Fatalf("ended with %q: %s", r.Code, r.Text)
				}
			})
		})
	}
	t.Run("snapshot", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t, 1, backlog.Options{}, ServerOptions{})
			p := s.dial(0)
			s.beginSync(p, 1, wire.ID{})
			p.send(wire.AppendFetch(nil, wire.Fetch{Snapshot: wire.ID{8}}))
			if r := p.ending(); r.Code != wire.CodeProtocol {
				t.Fatalf("ended with %q: %s", r.Code, r.Text)
			}
		})
	})
}
