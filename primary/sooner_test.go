package primary

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/wire"
)

// A replica that does not have this primary's number of shards will need them all: while it gets the first one, checkpoints
// of the others are made. One that has it asks for what it needs.
func TestSnapshotsAreMadeSideBySide(t *testing.T) {
	for has, want := range map[uint32]int{0: 1, 2: 1, 3: 0} {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t, 3, backlog.Options{}, ServerOptions{})
			for _, f := range s.shards {
				f.slow = time.Second
			}
			s.shards[2].unsettled = true // it would fail
			began := time.Now()
			h := hello(1, wire.Position{})
			h.Shards = has
			p := s.dial(0)
			p.send(wire.AppendHello(nil, h))
			p.welcome(wire.KindFullSync)
			synctest.Wait()
			for i, want := range []int{1, want, 0} {
				if n, _ := s.shards[i].asked(); n != want {
					t.Errorf("a replica with %d shards: %d checkpoints of shard %d, want %d", has, n, i, want)
				}
			}
			h.Shard, h.Shards = 1, 3
			p = s.dial(1)
			p.send(wire.AppendHello(nil, h))
			p.welcome(wire.KindFullSync)
			if took, n := time.Since(began), s.shards[1].checkpoints; n != 1 || took != time.Duration(2-want)*time.Second {
				t.Errorf("a replica with %d shards: its second one's snapshot was there after %s, %d checkpoints", has, took, n)
			}
		})
	}
}

// A sum that the shard knows is told as it is, and the file is not read for it; what cannot be that file's is not believed.
func TestKnownSums(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{})
		known := wire.File{Name: "000001.sst", Size: uint64(checkpointFiles["000001.sst"]), Sum: [16]byte{1, 2, 3}}
		s.shards[0].known = []wire.File{known, {Name: "blobs/000002.blob", Size: 1, Sum: [16]byte{4}}, {Name: "gone.sst", Size: 5}}
		st := s.beginSync(s.dial(0), 1, wire.ID{})
		for _, f := range st.manifest.Files {
			content := make([]byte, checkpointFiles[f.Name])
			for i := range content {
				content[i] = checkpointByte(f.Name, i)
			}
			want := wire.File{Name: f.Name, Size: uint64(len(content)), Sum: xxh3.Hash128(content).Bytes()}
			if f.Name == known.Name {
				want = known
			}
			if f != want {
				t.Errorf("the manifest has %+v, want %+v", f, want)
			}
		}
	})
}

// A shard is asked for quiet from the checkpoint on until the last byte of the snapshot is sent, or the session has ended.
func TestQuietWhileSyncing(t *testing.T) {
	for _, cut := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t, 1, backlog.Options{}, ServerOptions{})
			f := s.shards[0]
			f.slow = time.Second
			quiet := func(when string, want bool) {
				t.Helper()
				synctest.Wait()
				if _, n := f.asked(); n > 0 != want {
					t.Errorf("%s: %d ask for quiet", when, n)
				}
			}
			quiet("before", false)
			p := s.dial(0)
			p.send(wire.AppendHello(nil, hello(1, wire.Position{})))
			quiet("while the checkpoint is made", true)
			p.welcome(wire.KindFullSync)
			m, err := wire.ParseManifest(p.until(wire.KindManifest).Payload)
			if err != nil {
				t.Fatal(err)
			}
			st := &staging{manifest: m, files: make([][]byte, len(m.Files))}
			quiet("before anything was asked for", true)
			if cut {
				p.close()
				quiet("behind the end", false)
				return
			}
			p.fetch(st, everything)
			quiet("while the replica loads", true)
			p.send(wire.AppendFetch(nil, wire.Fetch{Snapshot: m.Snapshot}))
			p.until(wire.KindSnapshotEnd)
			p.heartbeat()
			quiet("in the stream", false)
		})
	}
}
