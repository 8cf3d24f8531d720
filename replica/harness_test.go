package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/xxh3"
	"go.uber.org/goleak"

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
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.installErr != nil {
		return s.installErr
	}
	list, err := readAll(s.fs, s.fs.PathJoin(dir, "list"))
	if err != nil {
		return err
	}
	s.list, s.position, s.lineage, s.installs = list, at, l, s.installs+1
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
}

func shardsOf(fs []*fakeShard) (out []Shard) {
	for _, s := range fs {
		out = append(out, s)
	}
	return out
}

func (s *fakeStore) Shards() []Shard { return shardsOf(s.shards) }

func (s *fakeStore) NewDataset(n int) ([]Shard, error) {
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
	s.shards, s.next = s.next, nil
	s.switches++
	return nil
}

// file is one file of a fake primary's snapshot.
type file struct {
	name    string
	content []byte
}

// fakePrimary is one shard of a scripted primary. It resumes whom it can and streams what it has.
type fakePrimary struct {
	t       testing.TB
	shard   uint32
	shards  uint32
	lineage wire.Lineage

	mu          sync.Mutex
	frames      [][]byte // of the log, from offset first on
	first, next uint64
	snapshot    wire.ID
	files       []file
	at          uint64 // of the snapshot
	refuse      *wire.Refusal
	chunk       int                              // size of chunks
	script      func(net.Conn, wire.Hello) error // in place of the usual
	damage      func(f file, from uint64, data []byte)
	changed     chan struct{} // closed and replaced when frames were added

	hellos     []wire.Hello
	acks       []wire.Ack
	fetches    []wire.Fetch
	keepalives int
	byes       []wire.Refusal
	chunkBytes int
}

func newFakePrimary(t testing.TB) *fakePrimary {
	return &fakePrimary{t: t, shards: 1, lineage: wire.Lineage{{Generation: gen1}}, chunk: 7, changed: make(chan struct{})}
}

// write appends a frame with the values.
func (p *fakePrimary) write(values ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frames = append(p.frames, frameOf(p.t, p.next, values...))
	p.next += uint64(len(values))
	close(p.changed)
	p.changed = make(chan struct{})
}

// snap makes a snapshot with the state at the present offset, and forgets the log before it.
func (p *fakePrimary) snap(id byte, files ...file) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.snapshot, p.files, p.at = wire.ID{id}, files, p.next
	p.first, p.frames = p.next, nil
}

func (p *fakePrimary) locked(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

func (p *fakePrimary) manifest() wire.Manifest {
	m := wire.Manifest{Snapshot: p.snapshot}
	for _, f := range p.files {
		m.Files = append(m.Files, wire.File{Name: f.name, Size: uint64(len(f.content)), Sum: xxh3.Hash128(f.content).Bytes()})
	}
	return m
}

var errPrimaryDone = errors.New("done")

// serve is one connection.
func (p *fakePrimary) serve(conn net.Conn) {
	defer conn.Close()
	frames := frameReader{src: conn, busy: func() bool { return false }}
	defer frames.close()
	f, _, err := frames.next()
	if err != nil || f.Kind != wire.KindHello {
		return
	}
	h, err := wire.ParseHello(f.Payload)
	if err != nil {
		p.t.Errorf("hello: %v", err)
		return
	}
	p.locked(func() { p.hellos = append(p.hellos, h) })
	ctx, cancel := context.WithCancel(context.Background())
	fetches := make(chan wire.Fetch, 4)
	var group sync.WaitGroup
	// It reads what the replica says until the connection ends; serve waits for it.
	group.Go(func() {
		defer cancel()
		p.listen(&frames, fetches)
	})
	err = p.answer(ctx, conn, h, fetches)
	if err != nil && !errors.Is(err, errPrimaryDone) {
		cancel()
	}
	conn.Close()
	group.Wait()
}

func (p *fakePrimary) listen(frames *frameReader, fetches chan wire.Fetch) {
	for {
		f, _, err := frames.next()
		if err != nil {
			return
		}
		p.mu.Lock()
		switch f.Kind {
		case wire.KindAck:
			a, err := wire.ParseAck(f.Payload)
			if err != nil {
				p.t.Errorf("ack: %v", err)
			}
			p.acks = append(p.acks, a)
		case wire.KindFetch:
			fetch, err := wire.ParseFetch(f.Payload)
			if err != nil {
				p.t.Errorf("fetch: %v", err)
			}
			p.fetches = append(p.fetches, fetch)
			fetches <- fetch
		case wire.KindKeepalive:
			p.keepalives++
		case wire.KindBye:
			r, err := wire.ParseRefusal(f.Kind, f.Payload)
			if err != nil {
				p.t.Errorf("bye: %v", err)
			}
			p.byes = append(p.byes, r)
		default:
			p.t.Errorf("a %s frame from the replica", f.Kind)
		}
		p.mu.Unlock()
	}
}

func (p *fakePrimary) answer(ctx context.Context, conn net.Conn, h wire.Hello, fetches chan wire.Fetch) error {
	p.mu.Lock()
	script, refusal := p.script, p.refuse
	w := wire.Welcome{Version: wire.Version, Shard: p.shard, Shards: p.shards, Next: p.next, Lineage: p.lineage}
	switch {
	case h.Shards != 0 && h.Shards != p.shards:
		w.Reason = wire.ReasonShardLayout
	case h.Position.IsZero():
		w.Reason = wire.ReasonEmpty
	case !p.lineage.Contains(h.Position, p.next):
		w.Reason = wire.ReasonUnknownGeneration
	case h.Position.Offset < p.first:
		w.Reason = wire.ReasonEvicted
	}
	from := h.Position.Offset
	if w.Reason != "" {
		from, w.Snapshot = p.at, p.snapshot
	}
	w.Position = p.lineage.At(from)
	p.mu.Unlock()
	if script != nil {
		return script(conn, h)
	}
	if refusal != nil {
		_, err := conn.Write(wire.AppendRefusal(nil, wire.KindRefuse, *refusal))
		return err
	}
	if _, err := conn.Write(wire.AppendWelcome(nil, w)); err != nil {
		return err
	}
	if w.Reason != "" {
		if err := p.ship(ctx, conn, fetches); err != nil {
			return err
		}
	}
	return p.stream(ctx, conn, from)
}

func (p *fakePrimary) ship(ctx context.Context, conn net.Conn, fetches chan wire.Fetch) error {
	p.mu.Lock()
	m, files := p.manifest(), p.files
	p.mu.Unlock()
	if _, err := conn.Write(wire.AppendManifest(nil, m)); err != nil {
		return err
	}
	for {
		var fetch wire.Fetch
		select {
		case fetch = <-fetches:
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
			if err := p.beat(conn, 0, 0); err != nil {
				return err
			}
			continue
		}
		for _, want := range fetch.Wants {
			f := files[want.File]
			for from := int(want.From); from < len(f.content); from += p.chunk {
				data := bytes.Clone(f.content[from:min(len(f.content), from+p.chunk)])
				if p.damage != nil {
					p.damage(f, uint64(from), data)
				}
				p.locked(func() { p.chunkBytes += len(data) })
				if _, err := conn.Write(wire.AppendChunk(nil, wire.Chunk{File: want.File, From: uint64(from), Data: data})); err != nil {
					return err
				}
			}
		}
		if _, err := conn.Write(wire.AppendSnapshotEnd(nil, m.Snapshot)); err != nil {
			return err
		}
		if len(fetch.Wants) == 0 {
			return nil
		}
	}
}

func (p *fakePrimary) beat(conn net.Conn, sent uint64, digest wire.Digest) error {
	p.mu.Lock()
	h := wire.Heartbeat{Position: p.lineage.At(p.next), Clock: time.Now().UnixMicro(), Digest: digest, Sent: sent}
	p.mu.Unlock()
	_, err := conn.Write(wire.AppendHeartbeat(nil, h))
	return err
}

func (p *fakePrimary) stream(ctx context.Context, conn net.Conn, sent uint64) error {
	var digest wire.Digest
	due := time.Now()
	for {
		if !time.Now().Before(due) {
			if err := p.beat(conn, sent, digest); err != nil {
				return err
			}
			due = time.Now().Add(time.Second)
		}
		p.mu.Lock()
		changed := p.changed
		var send []byte
		for _, raw := range p.frames {
			if f, _ := wire.ParseFrame(raw); f.First == sent {
				send, sent, digest = raw, f.Next(), digest.Add(f.CRC())
				break
			}
		}
		p.mu.Unlock()
		if send != nil {
			if _, err := conn.Write(send); err != nil {
				return err
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Until(due)):
		}
	}
}

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
	_, port, err := splitAddress(address)
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

func (n *network) follow(store *fakeStore, change func(*FollowerOptions)) *Follower {
	o := FollowerOptions{
		Primary: "primary:7000", Store: store, ReplicaID: wire.ID{1}, Node: wire.ID{2}, Dial: n.dial, FS: store.fs,
		Jitter: func() float64 { return 0.5 },
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
