package replica

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/understudy-kv/understudy/wire"
)

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
	asks        uint64        // the newest offset to ask for

	conns      []net.Conn
	hellos     []wire.Hello
	acks       []wire.Ack
	fetches    []wire.Fetch
	keepalives int
	heard      time.Time     // when a frame came last
	silence    time.Duration // the longest time between two
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

// ask asks for an ack.
func (p *fakePrimary) ask(offset uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asks = offset
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
	p.locked(func() { p.hellos, p.conns, p.heard = append(p.hellos, h), append(p.conns, conn), time.Now() })
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
		p.heard, p.silence = time.Now(), max(p.silence, time.Since(p.heard))
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
	var asked uint64
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
		if send == nil && p.asks > asked {
			asked = p.asks
			send = wire.AppendAsk(nil, asked)
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

// cutAll closes every connection.
func (p *fakePrimary) cutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
}

func (p *fakePrimary) acksNow() (a []wire.Ack)     { p.locked(func() { a = p.acks }); return }
func (p *fakePrimary) byesNow() (b []wire.Refusal) { p.locked(func() { b = p.byes }); return }
func (p *fakePrimary) hellosNow() (h []wire.Hello) { p.locked(func() { h = p.hellos }); return }
