package primary

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/slottable"
	"github.com/understudy-kv/understudy/wire"
)

// noShard is asked for by nodes that only want to know whether following this one would be a loop. They are refused, and
// nobody has to look into it.
const noShard = math.MaxUint32

// serve is one connection from its first byte to its last.
func (s *Server) serve(p *port, conn net.Conn) {
	defer conn.Close()
	if p.pending.add(conn) {
		p.refused(refusedCrowded)
	}
	if s.ctx.Err() != nil {
		p.pending.remove(conn) // it may have come behind closeAll
		return
	}
	l := newLink(conn)
	h, t, v, err := readHello(l)
	p.pending.remove(conn)
	log := s.log.With("shard", p.ID(), "address", conn.RemoteAddr().String())
	if errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) {
		return // by pending
	}
	if err != nil {
		p.refused(refusedGarbage)
		log.Debug("closed a connection that sent no HELLO", "error", err)
		return
	}
	if err := tune(conn); err != nil {
		log.Warn("TCP_USER_TIMEOUT could not be set", "error", err)
	}
	if t != nil {
		s.takeover(l, *t, log)
		return
	}
	o := &opening{verdict: v}
	if v.Code == "" {
		o = s.open(p, h, conn.RemoteAddr().String())
	}
	log = log.With("replica", h.Replica.String())
	if o.verdict.Action == Refuse {
		if code := o.verdict.Code; h.Shard == noShard && (code == wire.CodeShard || code == wire.CodeLoop) {
			log.Debug("answered whether it could follow", "node", h.Node, "code", code)
		} else {
			p.refused(string(code))
			log.Warn("replica refused", "code", code, "reason", o.verdict.Text)
		}
		r := wire.Refusal{Version: wire.Version, Code: o.verdict.Code, Text: o.verdict.Text, Shards: uint32(len(s.ports))}
		if err := l.write(wire.AppendRefusal(nil, wire.KindRefuse, r)); err != nil {
			log.Debug("refusal not sent", "error", err)
		}
		return
	}
	l.adopt(s.opts.Adopt)
	newSession(s, p, l, h, o, log).run()
	l.conn.Close()
}

// takeover answers a request to take over, which is all that its connection is for, behind a probe or without one. Who
// asked may be gone before the answer is there; it asks again.
func (s *Server) takeover(l *link, t wire.Takeover, log hclog.Logger) {
	// The server's end must reach an answer that is stuck.
	defer context.AfterFunc(s.ctx, l.end)()
	if s.answerTakeover(l, t, log) != wire.OutcomeReady {
		return
	}
	// And the wait for the request.
	stop := context.AfterFunc(s.ctx, func() { l.conn.Close() })
	f, err := l.read(takeoverLimit, time.Now().Add(HandshakeTimeout))
	stop()
	if err == nil {
		if t, err = wire.ParseTakeover(f.Payload); err == nil {
			s.answerTakeover(l, t, log)
		}
	}
	if err != nil {
		log.Debug("no request came behind the probe", "handover", t.ID, "error", err)
	}
}

func (s *Server) answerTakeover(l *link, t wire.Takeover, log hclog.Logger) wire.Outcome {
	reply := wire.TakeoverReply{ID: t.ID, Outcome: wire.OutcomeRefused}
	if t.ID.IsZero() || t.Node.IsZero() {
		reply.Text = fmt.Sprintf("%s: a TAKEOVER must carry an id and the sender's node id", wire.CodeProtocol)
	} else if err := s.opts.Authenticate(t.User, t.Password); err != nil {
		reply.Text = fmt.Sprintf("%s: %v", wire.CodeAuth, err)
	} else if t.Cluster != s.opts.Cluster {
		reply.Text = fmt.Sprintf("%s: this node belongs to cluster %q, the sender to %q", wire.CodeCluster, s.opts.Cluster, t.Cluster)
	} else {
		reply = s.opts.Takeover(s.ctx, t)
	}
	level := hclog.Info
	if t.Probe { // which changes nothing, and may come often
		level = hclog.Debug
	}
	log.Log(level, "answered a handover", "handover", t.ID, "node", t.Node, "probe", t.Probe, "outcome", reply.Outcome, "reason", reply.Text)
	if err := l.write(wire.AppendTakeoverReply(nil, reply)); err != nil {
		log.Debug("the answer was not sent", "error", err)
	}
	return reply.Outcome
}

// readHello reads the HELLO, or a TAKEOVER, and nothing else. A HELLO that cannot be understood gets a verdict; what is not
// even one gets no answer.
func readHello(l *link) (h wire.Hello, t *wire.Takeover, v Verdict, err error) {
	f, err := l.read(helloLimit, time.Now().Add(HandshakeTimeout))
	if err != nil {
		return h, nil, v, err
	}
	if f.Kind == wire.KindTakeover {
		asked, err := wire.ParseTakeover(f.Payload)
		return h, &asked, v, err
	}
	if f.Kind != wire.KindHello {
		return h, nil, v, fmt.Errorf("%w: it began with a %s frame", errProtocol, f.Kind)
	}
	h, err = wire.ParseHello(f.Payload)
	if err != nil {
		code := wire.CodeProtocol
		if h.Version != wire.Version {
			code = wire.CodeVersion
		}
		return h, nil, refuse(code, "this primary speaks protocol version %d and cannot read the HELLO of version %d: %v", wire.Version, h.Version, err), nil
	}
	return h, nil, v, nil
}

// opening is an accepted handshake, or a refused one.
type opening struct {
	verdict   Verdict
	session   slottable.Session
	log       *backlog.Log
	lineage   wire.Lineage
	path      []wire.ID
	published uint64
	reader    *backlog.Reader // Resume: open at the position
	snapshot  *snapshot       // FullSync: acquired
	least     uint64          // FullSync: a snapshot must not lie before it: before what both have, or at 0 for who has something
}

// open decides, and attaches the slot. The reader is opened first and everything else is read while it is open, so there
// is one moment for which the verdict holds (pitfall 1). Between the reader and the slot, the log may still be trimmed;
// the slot holds it, so after that one look tells whether it came in time.
func (s *Server) open(p *port, h wire.Hello, address string) *opening {
	const tries = 5
	for range tries {
		o := &opening{log: p.Log(), lineage: p.Lineage(), path: s.opts.Path()}
		o.published = o.log.Published()
		f := Facts{
			Node: s.opts.Node, Path: o.path, Following: s.opts.Following(), Streaming: s.opts.Streaming(), Cluster: s.opts.Cluster,
			Shard: uint32(p.ID()), Shards: uint32(len(s.ports)), Format: s.opts.Format, Auth: s.opts.Authenticate(h.User, h.Password),
			Lineage: o.lineage, Published: o.published, Unsettled: !p.Settled(),
		}
		if fork, common := Fork(h, f.Lineage, f.Published, f.Following); common {
			var err error
			if o.reader, err = o.log.NewReader(fork.Offset); err != nil {
				if f.Hold, err = holdOf(err); err != nil {
					o.verdict = refuse(wire.CodeFailed, "shard %d cannot be read at %d: %v", p.ID(), fork.Offset, err)
					return o
				}
			}
			f.Values = fork.Offset < h.Position.Offset && p.tellsValues()
			o.least = min(fork.Offset, f.Published)
		}
		if h.Position.Offset > 0 {
			o.least = max(o.least, min(1, f.Published))
		}
		if p.Log() != o.log || !p.Lineage().Equal(o.lineage) {
			o.closeReader()
			continue
		}
		f.Mixed = s.opts.Mixed() // behind the look at the shard, which gets another state only once this is true
		o.verdict = Decide(h, f)
		if o.verdict.Action != Resume {
			o.closeReader()
		}
		if o.verdict.Action == Refuse || s.attach(p, h, o, address) {
			return o
		}
		o.closeReader()
	}
	return &opening{verdict: refuse(wire.CodeBusy, "shard %d is changing too fast to decide; try again", p.ID())}
}

func (o *opening) closeReader() {
	if o.reader != nil {
		o.reader.Close()
		o.reader = nil
	}
}

// attach opens the slot's session. It reports false if the log lost the position meanwhile, and the decision must be
// made again.
func (s *Server) attach(p *port, h wire.Hello, o *opening, address string) bool {
	a := slottable.Attachment{
		Shard: p.ID(), Replica: h.Replica, Nonce: h.Nonce, Address: address, Announce: h.Announce, AnnounceBase: h.AnnounceBase,
		Start: o.verdict.Position.Offset, Syncing: o.verdict.Action == FullSync, Undoing: o.verdict.Action == Rewind, Settles: h.Settles.Offset,
	}
	if a.Syncing {
		a.Start = p.snapshots.start(h.Snapshot, o.least)
	}
	s.present(p)
	now := s.now()
	s.mu.Lock()
	opened, replaced, err := s.mu.table.Attach(a, now)
	old := s.mu.sessions[replaced]
	s.mu.Unlock()
	if err != nil {
		o.closeReader()
		o.verdict = verdictOf(err)
		return true
	}
	if old != nil {
		old.end(errReplaced)
	}
	o.session = opened
	if a.Syncing {
		o.snapshot = p.snapshots.acquire(h.Snapshot, o.least)
		if int(h.Shards) != len(s.ports) {
			s.prepare(p) // the replica lays out its shards anew, and learns from this session's answer how many
		}
		return true
	}
	if o.log.Bounds().Oldest > a.Start {
		s.mu.Lock()
		s.mu.table.Detach(opened, now)
		s.mu.Unlock()
		return false
	}
	return true
}

// prepare has snapshots of all other shards made, side by side with this one's.
func (s *Server) prepare(p *port) {
	for _, other := range s.ports {
		if other != p {
			other.snapshots.prepare()
		}
	}
}

// holdOf turns what opening a reader said into a fact; an error that is none comes back.
func holdOf(err error) (Hold, error) {
	switch {
	case errors.Is(err, backlog.ErrEvicted):
		return Evicted, nil
	case errors.Is(err, backlog.ErrFuture):
		return Beyond, nil
	case errors.Is(err, backlog.ErrMisaligned):
		return Misaligned, nil
	}
	return 0, err
}
