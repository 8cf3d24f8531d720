package replica

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/understudy-kv/understudy/internal/netpoll"
	"github.com/understudy-kv/understudy/internal/polite"
	"github.com/understudy-kv/understudy/wire"
)

// reader is the connection's read side, with what the session wants to know of each read.
type reader struct {
	s   *session
	try bool // the connection can be lent: where it would have to wait for a little, it returns netpoll.ErrWouldBlock
}

// Read has what was read before applied, reads once, notes the time, and in a full sync waits until the bytes are within the rate limit.
func (r reader) Read(b []byte) (int, error) {
	s, pacer := r.s, r.s.r.f.pacer
	if shard := s.r.shard(); shard != nil {
		s.applySmall(shard)
	}
	if !s.pacing || pacer == nil {
		n, err := r.read(b)
		if s.last = n; n > 0 {
			s.heard.Store(int64(s.r.f.now()))
		}
		return n, err
	}
	n, err := s.conn.Read(b[:pacer.piece(len(b))])
	s.last = n
	s.heard.Store(int64(s.r.f.now()))
	if d := pacer.delay(s.r.f.now(), n); d > 0 && err == nil {
		s.pause(true)
		defer s.pause(false)
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.done:
		}
	}
	return n, err
}

func (r reader) read(b []byte) (n int, err error) {
	s := r.s
	// Where a lot comes, more will in a moment.
	if r.try && s.last < small {
		return s.lender.TryRead(b)
	}
	return s.conn.Read(b)
}

// greet tells the link of the connection, and returns what it wants done.
func (s *session) greet() []Action {
	r := s.r
	ev := Event{Kind: EventDialed}
	if shard := r.shard(); shard != nil {
		ev.Position, ev.Lineage, ev.Durable = shard.Position(), shard.Lineage(), shard.Durable()
		ev.Snapshot = stagedSnapshot(r.f.opts.FS, shard.Dir())
		if sh, ok := shard.(rewinder); ok {
			ev.Settles, ev.Rewinds = sh.Settles(), r.f.opts.SurplusLimit > 0 && sh.CanRewind()
		}
	}
	return s.step(ev, &s.acts)
}

// read greets the primary and then turns what it sends into events, until the session ends.
func (s *session) read(first []Action) error {
	s.obey(first)
	for !s.ending() {
		f, at, err := s.frames.next()
		if err == netpoll.ErrWouldBlock {
			s.lender.Lend(s.serve, lendFor)
			err = s.failed
			if err == nil {
				continue
			}
		}
		if err == io.EOF {
			return fmt.Errorf("the primary closed the connection: %w", err)
		}
		if err != nil {
			return s.explain(err)
		}
		s.frame, s.at = f, at
		ev, err := s.event(f)
		if err != nil {
			return err
		}
		if ev.Kind != EventWake {
			s.obey(s.step(ev, &s.acts))
		}
		if err := s.settle(ev.Kind); err != nil {
			return fmt.Errorf("%w: %w", ErrShard, err)
		}
		switch ev.Kind {
		case EventWelcome:
			s.frames.limit = 0 // it has been accepted, and so has the primary
		case EventHeartbeat:
			// A data set of more shards may not have found its ports where the last HELLO said.
			if s.announced != s.r.f.opts.AnnounceBase() {
				return errMoved
			}
		}
	}
	return nil
}

// settle has the node record what became true with an event, if anything: that its shards are of one history again, or that readers are to
// see another data set.
func (s *session) settle(k EventKind) error {
	f := s.r.f
	if k != EventHeartbeat && !f.mixed.Load() {
		return nil // as with nearly every frame
	}
	s.pause(true) // it writes files
	defer s.pause(false)
	if err := f.settle(); err != nil || k != EventHeartbeat {
		return err
	}
	return f.trySwitch()
}

// lendFor is how long a reader lends its reading at most without a frame that is for itself: should the poller be held up by something else,
// the primary's heartbeats are not left unread for that long.
const lendFor = 3 * time.Second

// serve is the reader while its reading is lent: it takes frames with mutations, as long as they are few, and leaves everything else to
// the reader.
func (s *session) serve() bool {
	for read := false; !s.ending(); {
		h, whole, err := s.frames.ahead()
		switch {
		case err != nil, whole && h.Kind != wire.KindMutations && h.Kind != wire.KindAsk, !whole && h.Size() >= ownSlab:
			return false
		case whole && h.Kind == wire.KindAsk:
			if !s.takeAsk() {
				return false
			}
			continue
		case whole:
			if !s.take(h) {
				return false
			}
			continue
		case read && !s.lender.More():
			if shard := s.r.shard(); shard != nil {
				s.applySmall(shard)
			}
			return true
		}
		if err := s.frames.more(h); err != nil {
			if err != netpoll.ErrWouldBlock {
				s.failed = err
			}
			return err == netpoll.ErrWouldBlock
		}
		read = true
	}
	return false
}

// take takes the frame with mutations that is ahead. It returns false if the reader has to, or if the session is to end.
func (s *session) take(h wire.Header) bool {
	if s.last >= small || !s.inbox.admits(h.Size()) {
		return false
	}
	ev, ok := s.nextEvent()
	if ok {
		s.obey(s.step(ev, &s.acts))
	}
	return ok
}

// takeAsk takes the ask that is ahead, and answers it if that can be done. It returns false if the session is to end.
func (s *session) takeAsk() bool {
	ev, ok := s.nextEvent()
	if ok {
		s.stepFor(ev, &s.acts, nil)
		if !s.tryAck() {
			s.outbox.signal()
		}
	}
	return ok
}

// nextEvent is the event of the frame that is ahead. It returns false if the session is to end.
func (s *session) nextEvent() (ev Event, ok bool) {
	f, at, err := s.frames.next()
	if err == nil {
		s.frame, s.at = f, at
		ev, err = s.event(f)
	}
	s.failed = err
	return ev, err == nil
}

// explain finds the usual mistake behind an answer that is no frame: clients are served there.
func (s *session) explain(err error) error {
	answered := s.frame.Kind != 0
	if answered || !errors.Is(err, wire.ErrMagic) || !strings.ContainsRune("-+:$*", rune(s.frames.pending()[0])) {
		return err
	}
	return fmt.Errorf("%w: %s answered in RESP: give the replication port base, which the primary's ready line names (replication=...): %w",
		ErrClientPort, s.r.address(), err)
}

// event parses a frame. EventWake stands for a frame that is skipped.
func (s *session) event(f wire.Frame) (ev Event, err error) {
	switch f.Kind {
	case wire.KindMutations:
		// Every byte is checked before the link hears of the frame (design §6.5, pitfall 5).
		if err := f.Check(); err != nil {
			return ev, fmt.Errorf("frame at offset %d: %w", f.First, err)
		}
		ev = Event{Kind: EventFrame, First: f.First, Next: f.Next(), Size: len(f.Raw), CRC: f.CRC()}
	case wire.KindHeartbeat:
		var h wire.Heartbeat
		h, err = wire.ParseHeartbeat(f.Payload)
		ev = Event{Kind: EventHeartbeat, Heartbeat: &h}
	case wire.KindAsk:
		ev = Event{Kind: EventAsk}
		ev.Next, err = wire.ParseAsk(f.Payload)
	case wire.KindResume, wire.KindRewind, wire.KindFullSync:
		var w wire.Welcome
		w, err = wire.ParseWelcome(f.Kind, f.Payload)
		ev = Event{Kind: EventWelcome, Welcome: &w}
	case wire.KindRefuse, wire.KindBye:
		var r wire.Refusal
		r, err = wire.ParseRefusal(f.Kind, f.Payload)
		ev = Event{Kind: EventRefused, Refusal: &r}
		if f.Kind == wire.KindBye {
			ev.Kind = EventBye
		}
	case wire.KindManifest:
		var m wire.Manifest
		m, err = wire.ParseManifest(f.Payload)
		ev = Event{Kind: EventManifest, Manifest: &m}
	case wire.KindChunk:
		s.chunk, err = wire.ParseChunk(f.Payload)
		ev = Event{Kind: EventChunk, File: s.chunk.File, From: s.chunk.From, Size: len(s.chunk.Data)}
	case wire.KindSnapshotEnd:
		var id wire.ID
		id, err = wire.ParseSnapshotEnd(f.Payload)
		ev = Event{Kind: EventSnapshotEnd, Snapshot: id}
	case wire.KindValues:
		err = f.CheckValues()
		ev = Event{Kind: EventValues}
	case wire.KindValuesEnd:
		ev = Event{Kind: EventValuesEnd}
		ev.Position, err = wire.ParseValuesEnd(f.Payload)
	default:
		if f.Kind < wire.KindOptional {
			return ev, fmt.Errorf("%w: a %s frame is not for replicas", ErrProtocol, f.Kind)
		}
	}
	return ev, err
}

// obey carries out what only the reader may, and steps the link with the answers.
func (s *session) obey(acts []Action) {
	for len(acts) > 0 {
		var answer Event
		for _, a := range acts {
			if s.ending() && a.Kind != ActionDiscard {
				return
			}
			ev, err := s.carryOut(a)
			if err != nil {
				s.step(Event{Kind: EventFailed, Err: err}, &s.acts)
				return
			}
			if ev.Kind != EventWake {
				answer = ev
			}
		}
		if answer.Kind == EventWake {
			return
		}
		acts = s.step(answer, &s.acts)
	}
}

// carryOut does one action. EventWake stands for no answer.
func (s *session) carryOut(a Action) (ev Event, err error) {
	r := s.r
	switch a.Kind {
	case ActionApply:
		err = s.inbox.put(s.frame, s.at)
		if errors.Is(err, errInboxClosed) {
			err = nil // the session is ending; the frame is asked for again in the next one
		}
		return ev, err
	case ActionHello:
		h := r.hello(a)
		s.announced = h.AnnounceBase
		s.outbox.push(wire.AppendHello(nil, h))
		return ev, nil
	case ActionFetch:
		s.pacing = len(a.Wants) > 0
		s.outbox.push(wire.AppendFetch(nil, wire.Fetch{Snapshot: a.Snapshot, Wants: a.Wants}))
		return ev, nil
	}
	// The rest takes time, during which nothing is read, or may where the disk does not keep up.
	s.pause(true)
	defer s.pause(false)
	switch a.Kind {
	case ActionStore:
		if err = s.staging.store(s.chunk); err != nil {
			err = fmt.Errorf("%w: %w", ErrStaging, err)
		}
	case ActionKeep:
		err = s.undoing.keep(s.frame)
	case ActionLayout:
		resumable, err := r.f.layout(r, int(a.Shards))
		return Event{Kind: EventLaidOut, Err: err, Resumable: resumable}, nil
	case ActionPlace:
		r.f.place(a.Welcome)
	case ActionAdopt:
		err = r.shard().AdoptLineage(a.Lineage)
		if err == nil {
			err = discardStaging(r.f.opts.FS, r.shard().Dir()) // of a sync that is not needed any more
		}
		if err == nil {
			err = r.f.trySwitch()
		}
		if err != nil {
			err = fmt.Errorf("%w: %w", ErrShard, err)
		}
	case ActionStage:
		ev = Event{Kind: EventStaged}
		s.hurry(true)
		s.staging, ev.Wants, ev.Err = openStaging(r.f.opts.FS, r.shard().Dir(), a.Welcome.Position, a.Manifest, blockFor(r.f.shards()), s.stopped)
	case ActionVerify:
		s.pacing = false
		ev = Event{Kind: EventVerified}
		ev.Wants, ev.Err = s.staging.verify()
	case ActionDiscard:
		err = errors.Join(s.staging.close(), discardStaging(r.f.opts.FS, r.shard().Dir()))
	case ActionSurplus:
		if err = r.f.opts.Surplus(r.shard(), a.From); err != nil {
			err = fmt.Errorf("%w: saving what the primary does not have: %w", ErrLoad, err)
		}
	case ActionInstall:
		ev = Event{Kind: EventInstalled, Err: s.install(a)}
		s.hurry(false)
	case ActionList:
		ev = Event{Kind: EventListed, Err: s.list(a.From)}
	case ActionRewind:
		ev = Event{Kind: EventRewound, Err: s.undo(a)}
	}
	return ev, err
}

// install switches the shard to what was staged, and the node to its new data set if this was the last shard of it.
func (s *session) install(a Action) error {
	if err := s.staging.seal(); err != nil {
		return err
	}
	if err := s.r.f.goOver(); err != nil {
		return err
	}
	shard := s.r.shard()
	if err := shard.Install(s.staging.filesDir(), a.Position, a.Lineage); err != nil {
		return err
	}
	if err := discardStaging(s.r.f.opts.FS, shard.Dir()); err != nil {
		return err
	}
	return s.r.f.trySwitch()
}

// hurry has the process take all processors for a full sync, or no more: see [polite.Hurry].
func (s *session) hurry(on bool) {
	switch {
	case on && s.calm == nil:
		s.calm = polite.Hurry()
	case !on && s.calm != nil:
		s.calm()
		s.calm = nil
	}
}

func (s *session) stopped() error {
	if s.ending() {
		return ErrClosed
	}
	return nil
}
