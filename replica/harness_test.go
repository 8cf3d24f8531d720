package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/understudy-kv/understudy/internal/netpoll/netpolltest"
	"github.com/understudy-kv/understudy/internal/node"
	"github.com/understudy-kv/understudy/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var gen1, gen2 = wire.Generation{1}, wire.Generation{2}

// frameOf builds a frame with one mutation per value.
func frameOf(t testing.TB, first uint64, values ...string) []byte {
	var b wire.Builder
	b.Reset()
	for _, v := range values {
		b.Put([]byte("k"), []byte(v))
		b.End()
	}
	raw, err := b.Finish(first, int64(first)+1)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(raw)
}

// fakeShard is a state machine for which applying a mutation twice, or not at all, shows: it lists them.
type fakeShard struct {
	id  int
	dir string
	fs  vfs.FS

	mu         sync.Mutex
	list       []byte // the values, a line each
	frames     []byte // as ingested
	position   wire.Position
	lineage    wire.Lineage
	commit     int64
	err        error
	ingestErr  error
	installErr error
	gate       chan struct{} // Ingest waits for it, if there is one
	largest    int           // of the runs ingested
	installs   int
	tried      int // runs that TryIngest took
}

func newFakeShard(fs vfs.FS, id int, dir string) *fakeShard {
	return &fakeShard{id: id, dir: dir, fs: fs}
}

func (s *fakeShard) ID() int     { return s.id }
func (s *fakeShard) Dir() string { return s.dir }
func (s *fakeShard) locked(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}
func (s *fakeShard) Position() (p wire.Position) { s.locked(func() { p = s.position }); return }
func (s *fakeShard) Lineage() (l wire.Lineage)   { s.locked(func() { l = s.lineage }); return }
func (s *fakeShard) Durable() uint64             { return s.Position().Offset }
func (s *fakeShard) CommitMicros() (c int64)     { s.locked(func() { c = s.commit }); return }
func (s *fakeShard) Err() (err error)            { s.locked(func() { err = s.err }); return }
func (s *fakeShard) text() (t string)            { s.locked(func() { t = string(s.list) }); return }

func (s *fakeShard) AdoptLineage(l wire.Lineage) error {
	s.locked(func() { s.lineage = l })
	return nil
}

func (s *fakeShard) TryIngest(frames []byte, first, next uint64) (bool, error) {
	free := false
	s.locked(func() {
		if free = s.gate == nil; free {
			s.tried++
		}
	})
	if !free {
		return false, nil
	}
	return true, s.Ingest(frames, first, next)
}

func (s *fakeShard) Ingest(frames []byte, first, next uint64) error {
	var gate chan struct{}
	s.locked(func() { gate = s.gate })
	if gate != nil {
		<-gate
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ingestErr != nil {
		return s.ingestErr
	}
	if first != s.position.Offset {
		return fmt.Errorf("ingest of [%d, %d) at %d", first, next, s.position.Offset)
	}
	s.largest = max(s.largest, len(frames))
	s.frames = append(s.frames, frames...)
	for rest := frames; len(rest) > 0; {
		f, err := wire.ParseFrame(rest)
		if err != nil {
			return err
		}
		for ops := f.Ops(); ops.Next(); {
			if ops.Op().Kind == wire.OpPut {
				s.list = append(append(s.list, ops.Op().Value...), '\n')
			}
		}
		s.commit = f.Commit
		rest = rest[len(f.Raw):]
	}
	s.position = s.lineage.At(next)
	return nil
}

func (s *fakeShard) Install(dir string, at wire.Position, l wire.Lineage) error {
	list, err := readAll(s.fs, s.fs.PathJoin(dir, "list")) // without mu: the disk may stand still
	s.locked(func() {
		if s.installErr != nil {
			err = s.installErr
		}
		if err == nil {
			s.list, s.position, s.lineage, s.installs = list, at, l, s.installs+1
		}
	})
	if err != nil {
		return err
	}
	return s.fs.RemoveAll(dir)
}

func readAll(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// fakeStore is a Store of fake shards.
type fakeStore struct {
	fs           vfs.FS
	shards, next []*fakeShard
	made         int
	switches     int
	mixed        bool
	marks        int    // how often SetMixed was called
	making       func() // unless nil, called by NewDataset
}

func shardsOf(fs []*fakeShard) (out []Shard) {
	for _, s := range fs {
		out = append(out, s)
	}
	return out
}

func (s *fakeStore) Shards() []Shard { return shardsOf(s.shards) }

func (s *fakeStore) NewDataset(n int) ([]Shard, error) {
	if s.making != nil {
		s.making()
	}
	if len(s.next) != n {
		s.made++
		s.next = nil
		for i := range n {
			dir := fmt.Sprintf("data-%d/shard-%03d", s.made, i)
			if err := s.fs.MkdirAll(dir, 0o755); err != nil {
				return nil, err
			}
			s.next = append(s.next, newFakeShard(s.fs, i, dir))
		}
	}
	return shardsOf(s.next), nil
}

func (s *fakeStore) Switch() error {
	s.shards, s.next, s.mixed = s.next, nil, false
	s.switches++
	return nil
}

func (s *fakeStore) SetMixed(mixed bool) error {
	s.mixed = mixed
	s.marks++
	return nil
}

func (s *fakeStore) Mixed() bool { return s.mixed }

// network connects a follower to fake primaries, shard i at port 7000+i.
type network struct {
	t         testing.TB
	primaries []*fakePrimary
	mu        sync.Mutex
	dials     int
	down      bool
	// wrap may change the n-th connection, from 0: the primary's end.
	wrap    func(n int, primary net.Conn) net.Conn
	serving sync.WaitGroup
}

func (n *network) dial(_ context.Context, address string) (net.Conn, error) {
	_, port, err := node.SplitAddress(address)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down || port-7000 >= len(n.primaries) {
		return nil, errors.New("connection refused")
	}
	ours, theirs := net.Pipe()
	if n.wrap != nil {
		theirs = n.wrap(n.dials, theirs)
	}
	n.dials++
	// The primary's end ends with the connection; the test's end waits for it.
	n.serving.Go(func() { n.primaries[port-7000].serve(theirs) })
	return ours, nil
}

// adopted counts connections: every second one's reading is lent, so that the tests see both.
var adopted atomic.Int64

func adoptSome(c net.Conn) net.Conn {
	if adopted.Add(1)%2 == 0 {
		return c
	}
	return &netpolltest.Pipe{Conn: c}
}

func (n *network) follow(store *fakeStore, change func(*FollowerOptions)) *Follower {
	o := FollowerOptions{
		Primary: "primary:7000", Store: store, ReplicaID: wire.ID{1}, Node: wire.ID{2}, Dial: n.dial, FS: store.fs,
		Jitter: func() float64 { return 0.5 }, Adopt: adoptSome,
	}
	if change != nil {
		change(&o)
	}
	f, err := NewFollower(o)
	if err != nil {
		n.t.Fatal(err)
	}
	return f
}

func (n *network) close(f *Follower) {
	if err := f.Close(); err != nil {
		n.t.Error(err)
	}
	n.serving.Wait()
}

// caughtUp waits until the follower has everything, for at most a minute of the bubble's time.
func caughtUp(t testing.TB, f *Follower) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := f.WaitCaughtUp(ctx); err != nil {
		t.Fatal(err)
	}
}

// filledShard is a shard that has the history's beginning.
func filledStore(fs vfs.FS, position uint64, list string) *fakeStore {
	s := newFakeShard(fs, 0, "shard")
	if err := fs.MkdirAll(s.dir, 0o755); err != nil {
		panic(err)
	}
	s.lineage = wire.Lineage{{Generation: gen1}}
	s.position = s.lineage.At(position)
	s.list = []byte(list)
	return &fakeStore{fs: fs, shards: []*fakeShard{s}}
}
