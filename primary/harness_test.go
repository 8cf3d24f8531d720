package primary

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a listener whose connections are pipes, which testing/synctest can wait for.
type memory struct {
	conns  chan net.Conn
	once   sync.Once
	done   chan struct{}
	resets atomic.Int32
}

func newMemory() *memory { return &memory{conns: make(chan net.Conn), done: make(chan struct{})} }

func (m *memory) Accept() (net.Conn, error) {
	select {
	case c := <-m.conns:
		return c, nil
	case <-m.done:
		return nil, net.ErrClosed
	}
}

func (m *memory) Close() error   { m.once.Do(func() { close(m.done) }); return nil }
func (m *memory) Addr() net.Addr { return nil }

func (m *memory) dial() net.Conn {
	here, there := net.Pipe()
	m.conns <- &pipe{Conn: there, resets: &m.resets}
	return here
}

// pipe counts how often it is about to be reset.
type pipe struct {
	net.Conn
	resets *atomic.Int32
}

func (p *pipe) SetLinger(sec int) error {
	if sec == 0 {
		p.resets.Add(1)
	}
	return nil
}

// fake is a shard with a real log and a checkpoint of three files.
type fake struct {
	t       testing.TB
	id      int
	fs      vfs.FS
	log     *backlog.Log
	builder wire.Builder

	mu          sync.Mutex
	lineage     wire.Lineage
	retention   func() (uint64, bool)
	checkpoints int
	slow        time.Duration // how long a checkpoint takes
	broken      error         // what Checkpoint fails with
	onLineage   func()        // called by the next Lineage
	unsettled   bool
	values      map[string][]byte // what Values tells
	noValues    bool              // the state machine cannot
	known       []wire.File       // what CheckpointSummed tells
	quiet       int               // how many asked for quiet and did not release it
}

var history = wire.Lineage{{Generation: wire.Generation{'a'}, First: 0}}

func newFake(t testing.TB, fs vfs.FS, id int, o backlog.Options) *fake {
	o.FS, o.Dir, o.Shard = fs, fmt.Sprintf("shard-%d/log", id), uint32(id)
	log, err := backlog.Create(o, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	return &fake{t: t, id: id, fs: fs, log: log, lineage: history}
}

func (f *fake) ID() int           { return f.id }
func (f *fake) Log() *backlog.Log { return f.log }
func (f *fake) Err() error        { return nil }
func (f *fake) Dir() string       { return fmt.Sprintf("shard-%d", f.id) }

func (f *fake) Lineage() wire.Lineage {
	f.mu.Lock()
	defer f.mu.Unlock()
	if hook := f.onLineage; hook != nil {
		f.onLineage = nil
		hook()
	}
	return f.lineage
}

func (f *fake) Position() wire.Position {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lineage.At(f.log.Published())
}

// begin begins a generation where the log ends, as a promotion does.
func (f *fake) begin(g byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lineage = f.lineage.Begin(wire.Generation{g}, f.log.Next())
}

// replace puts the shard into another history.
func (f *fake) replace(l wire.Lineage) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lineage = l
}

func (f *fake) Settled() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.unsettled
}

func (f *fake) Values(keys [][]byte, each func(key, value []byte, found bool) error) (wire.Position, error) {
	if f.noValues {
		return wire.Position{}, errors.ErrUnsupported
	}
	at := f.Position()
	for _, k := range keys {
		f.mu.Lock()
		v, found := f.values[string(k)]
		f.mu.Unlock()
		if err := each(k, v, found); err != nil {
			return at, err
		}
	}
	return at, nil
}

func (f *fake) SetRetention(r func() (uint64, bool)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.retention = r
}

func (f *fake) floor() (uint64, bool) {
	f.mu.Lock()
	r := f.retention
	f.mu.Unlock()
	return r()
}

// trim has the log trimmed as a shard would, with nothing that recovery needs.
func (f *fake) trim() {
	f.t.Helper()
	floor, any := f.floor()
	if err := f.log.Sync(); err != nil {
		f.t.Fatal(err)
	}
	f.log.Trim(f.log.Next(), floor, any)
}

var checkpointFiles = map[string]int{"000001.sst": 2_500_000, "marker.empty": 0, "blobs/000002.blob": 700_000}

func checkpointByte(name string, i int) byte { return byte(i*7 + len(name)) }

func (f *fake) Checkpoint(dir string) (wire.Position, error) {
	f.mu.Lock()
	f.checkpoints++
	slow, broken := f.slow, f.broken
	f.mu.Unlock()
	if broken != nil {
		return wire.Position{}, broken
	}
	at := f.Position()
	<-time.After(slow)
	for name, size := range checkpointFiles {
		path := f.fs.PathJoin(dir, name)
		if err := f.fs.MkdirAll(f.fs.PathDir(path), 0o755); err != nil {
			return at, err
		}
		content := make([]byte, size)
		for i := range content {
			content[i] = checkpointByte(name, i)
		}
		file, err := f.fs.Create(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			return at, err
		}
		if _, err := file.Write(content); err != nil {
			return at, err
		}
		if err := file.Close(); err != nil {
			return at, err
		}
	}
	return at, nil
}

func (f *fake) CheckpointSummed(dir string) (wire.Position, []wire.File, error) {
	at, err := f.Checkpoint(dir)
	f.mu.Lock()
	defer f.mu.Unlock()
	return at, f.known, err
}

func (f *fake) Quiet() (release func()) {
	add := func(n int) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.quiet += n
	}
	add(1)
	return func() { add(-1) }
}

// asked is how many checkpoints there were, and how many ask for quiet now.
func (f *fake) asked() (checkpoints, quiet int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.checkpoints, f.quiet
}

// write appends and publishes frames of one put each, with values of size bytes.
func (f *fake) write(frames, size int) { f.publish(frames, size, f.log.Publish) }

// hold is write of which nobody is told before it is announced.
func (f *fake) hold(frames, size int) {
	f.publish(frames, size, func(next uint64) { f.log.PublishHeld(next) })
}

func (f *fake) publish(frames, size int, publish func(next uint64)) {
	f.t.Helper()
	for range frames {
		f.builder.Reset()
		f.builder.Put([]byte("key"), make([]byte, size))
		f.builder.End()
		first := f.log.Next()
		raw, err := f.builder.Finish(first, 1)
		if err != nil {
			f.t.Fatal(err)
		}
		if err := f.log.Append(raw, first, first+1); err != nil {
			f.t.Fatal(err)
		}
		publish(first + 1)
	}
}

// stage is a server over fakes.
type stage struct {
	t      testing.TB
	fs     vfs.FS
	shards []*fake
	nets   []*memory
	server *Server
	opts   ServerOptions
}

func newStage(t testing.TB, shards int, log backlog.Options, opts ServerOptions) *stage {
	t.Helper()
	if opts.Adopt == nil {
		opts.Adopt = adoptSome
	}
	s := &stage{t: t, fs: vfs.NewMem(), opts: opts}
	for i := range shards {
		s.shards = append(s.shards, newFake(t, s.fs, i, log))
	}
	if err := s.fs.MkdirAll("node", 0o755); err != nil {
		t.Fatal(err)
	}
	s.begin()
	t.Cleanup(func() { s.end() })
	return s
}

// begin starts a server, as a new process would.
func (s *stage) begin() {
	s.t.Helper()
	o := s.opts
	o.FS, o.Dir, o.Node = s.fs, "node", wire.ID{0xAA}
	s.nets = nil
	for _, f := range s.shards {
		n := newMemory()
		s.nets = append(s.nets, n)
		o.Listeners, o.Shards = append(o.Listeners, n), append(o.Shards, f)
	}
	var err error
	if s.server, err = NewServer(o); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) end() {
	s.t.Helper()
	if s.server == nil {
		return
	}
	if err := s.server.Close(); err != nil {
		s.t.Error(err)
	}
	s.server = nil
}

// peer is the replica's end of a connection, told what to do step by step.
type peer struct {
	t    testing.TB
	conn net.Conn
	link *link
}

func (s *stage) dial(shard int) *peer {
	conn := s.nets[shard].dial()
	p := &peer{t: s.t, conn: conn, link: newLink(conn)}
	s.t.Cleanup(p.close)
	return p
}

func (p *peer) close() { p.conn.Close() }

func hello(replica byte, at wire.Position) wire.Hello {
	return wire.Hello{Version: wire.Version, Replica: wire.ID{replica}, Nonce: wire.ID{replica, 1}, Node: wire.ID{replica, 2}, Position: at}
}

func at(offset uint64) wire.Position {
	return wire.Position{Generation: wire.Generation{'a'}, Offset: offset}
}

func (p *peer) send(b []byte) {
	p.t.Helper()
	if _, err := p.conn.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

// next reads a frame; it does not wait for longer than the protocol lets a side be silent.
func (p *peer) next() wire.Frame {
	p.t.Helper()
	f, err := p.try()
	if err != nil {
		p.t.Fatal(err)
	}
	return f
}

func (p *peer) try() (wire.Frame, error) {
	return p.link.read(func(wire.Kind) uint32 { return wire.MaxPayload }, time.Time{})
}

// until reads frames up to the first of a kind, which must come before any of the kinds in never.
func (p *peer) until(kind wire.Kind) wire.Frame {
	p.t.Helper()
	for {
		f := p.next()
		if f.Kind == kind {
			return f
		}
		if f.Kind == wire.KindBye || f.Kind == wire.KindRefuse {
			r, err := wire.ParseRefusal(f.Kind, f.Payload)
			p.t.Fatalf("waiting for a %s, got %s %s: %s (%v)", kind, f.Kind, r.Code, r.Text, err)
		}
	}
}

// ending reads to the end of the session and returns its stated reason; "" if the connection just closed.
func (p *peer) ending() (r wire.Refusal) {
	p.t.Helper()
	for {
		f, err := p.try()
		if err != nil {
			if errors.Is(err, errSilent) {
				p.t.Fatal("the session did not end")
			}
			return r
		}
		if f.Kind == wire.KindBye || f.Kind == wire.KindRefuse {
			if r, err = wire.ParseRefusal(f.Kind, f.Payload); err != nil {
				p.t.Fatal(err)
			}
		}
	}
}

// resume says HELLO at an offset and expects RESUME.
func (s *stage) resume(shard int, replica byte, offset uint64) *peer {
	s.t.Helper()
	p := s.dial(shard)
	h := hello(replica, at(offset))
	h.Shard, h.Shards = uint32(shard), uint32(len(s.shards))
	p.send(wire.AppendHello(nil, h))
	w := p.welcome(wire.KindResume)
	if w.Position != at(offset) {
		s.t.Fatalf("resumes at %s, want %s", w.Position, at(offset))
	}
	return p
}

func (p *peer) welcome(kind wire.Kind) wire.Welcome {
	p.t.Helper()
	f := p.until(kind)
	w, err := wire.ParseWelcome(f.Kind, f.Payload)
	if err != nil {
		p.t.Fatal(err)
	}
	return w
}

func (p *peer) heartbeat() wire.Heartbeat {
	p.t.Helper()
	h, err := wire.ParseHeartbeat(p.until(wire.KindHeartbeat).Payload)
	if err != nil {
		p.t.Fatal(err)
	}
	return h
}

func (p *peer) ack(received, applied, durable uint64) {
	p.t.Helper()
	p.send(wire.AppendAck(nil, wire.Ack{Received: received, Applied: applied, Durable: durable}))
}

// frames reads mutations frames up to an offset.
func (p *peer) frames(from, next uint64) {
	p.t.Helper()
	for from < next {
		f := p.until(wire.KindMutations)
		if f.First != from {
			p.t.Fatalf("a frame from %d, want %d", f.First, from)
		}
		from = f.Next()
	}
}

// slot returns the only slot of a shard.
func (s *stage) slot(shard int) (state string, applied uint64) {
	s.t.Helper()
	slots := s.server.Status(shard).Slots
	if len(slots) != 1 {
		s.t.Fatalf("%d slots, want 1", len(slots))
	}
	return slots[0].State, slots[0].Applied
}

func dialTCP(a net.Addr) (net.Conn, error) { return net.Dial(a.Network(), a.String()) }
