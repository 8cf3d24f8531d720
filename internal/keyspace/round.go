package keyspace

import (
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/wire"
)

// flush executes what was planned and gives the replies to the sink. The parts run side by side; what they reply is
// taken in the order of the plan. A part that has gathered enough stops, and goes on once its replies were taken: the
// next reply in order is always that of a part whose earlier replies were all taken, so this never comes to a halt.
func (s *Session) flush(sink Sink) error {
	if len(s.plan) == 0 {
		return nil
	}
	defer s.clear()
	for {
		s.submit()
		if err := s.collect(sink); err != nil {
			return err
		}
		if s.at == len(s.plan) {
			return nil
		}
		if s.heldBack() {
			if err := s.await(sink); err != nil {
				return err
			}
		}
	}
}

// submit hands the parts that have work and no replies in hand to their shards, and waits for all of them.
func (s *Session) submit() {
	if !s.offered {
		s.offer()
	}
	if s.offered {
		s.serve(true, nil)
		s.round.waited.Store(true)
		<-s.round.ready
		s.round.waited.Store(false)
		s.executed()
	}
}

// offer begins a round: it queues the parts that have work and no replies in hand at their shards.
func (s *Session) offer() {
	n := int32(0)
	for _, p := range s.parts {
		if p.idle() {
			n++
		}
	}
	if n == 0 {
		return
	}
	s.offered = true
	s.round.left.Store(n)
	for _, p := range s.parts {
		if !p.idle() {
			continue
		}
		p.rewind()
		if err := p.on.Offer(p); err != nil {
			p.fail(err)
			s.round.arrive()
		}
	}
}

// serve has the round executed, by the session if the shards are idle.
func (s *Session) serve(gather bool, hold *shard.Hold) {
	for _, p := range s.parts {
		p.on.Serve(gather, hold)
	}
}

// executed ends a round that is ready.
func (s *Session) executed() {
	s.offered = false
	for _, p := range s.parts {
		if !p.written.IsZero() {
			s.noteWritten(p.shard, p.written)
		}
	}
}

// noteWritten remembers up to where the session has written on a shard.
func (s *Session) noteWritten(id int, at wire.Position) {
	for len(s.written) <= id {
		s.written = append(s.written, wire.Position{})
	}
	s.written[id] = at
}

// collect gives the sink the replies that are there, up to the first that is not.
func (s *Session) collect(sink Sink) error {
	limit := s.ks.opts.ReplyBytes
	for s.at < len(s.plan) {
		e := &s.plan[s.at]
		switch {
		case e.split:
			if !s.sharesReady(e) {
				return nil
			}
			if err := s.merge(e, sink); err != nil {
				return err
			}
			s.at++
		case e.part != nil:
			p := e.part
			if p.taken == p.done {
				return nil
			}
			// Neighbours of the same part are taken together.
			for s.at < len(s.plan) && p.taken < p.done {
				next := &s.plan[s.at]
				if next.part != p || next.mute != e.mute {
					break
				}
				p.taken++
				s.at++
			}
			from, to := p.takenBytes, p.ends[p.taken-p.base-1]
			p.takenBytes = to
			if e.mute {
				continue
			}
			if err := s.emit(sink, p, from, to); err != nil {
				return err
			}
		default:
			if w := sink.Writer(); !e.mute {
				w.Buf = append(w.Buf, s.lit[e.from:e.to]...)
			}
			s.at++
		}
		if len(sink.Writer().Buf) >= limit {
			if err := sink.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// sendDirectly is the size from which on replies are not copied into the sink's buffer.
const sendDirectly = 32 << 10

func (s *Session) emit(sink Sink, p *part, from, to int) error {
	w := sink.Writer()
	if len(w.Buf) == 0 && from == 0 && to == len(p.out.Buf) {
		// Everything that the part has, with nothing before it: exchange the buffers.
		w.Buf, p.out.Buf = p.out.Buf, w.Buf
		p.swapped()
		return nil
	}
	if to-from >= sendDirectly {
		return sink.Send(p.out.Buf[from:to])
	}
	w.Buf = append(w.Buf, p.out.Buf[from:to]...)
	return nil
}

// keepArgs is how many arguments of split commands a session keeps room for.
const keepArgs = 16 << 10

// clear readies the session for another plan. Nothing of a client's stays behind.
func (s *Session) clear() {
	for _, p := range s.parts {
		s.byID[p.shard] = nil
		s.ks.putPart(p)
	}
	clear(s.plan)
	clear(s.args)
	if cap(s.args) > keepArgs {
		s.args = nil
	}
	s.plan, s.at, s.parts = s.plan[:0], 0, s.parts[:0]
	s.lit, s.args, s.shares = s.lit[:0], s.args[:0], s.shares[:0]
}
