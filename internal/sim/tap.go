package sim

import (
	"errors"
	"sync"

	"github.com/understudy-kv/understudy/wire"
)

// tap listens in on a connection: it reads HELLO and its answer, which it judges, and then the acks. It runs on the
// goroutine that writes, before the bytes leave, so that what a side claims can be compared with what it has.
type tap struct {
	world         *world
	near, far     *incarnation // who dialled, and who answers
	mu            sync.Mutex
	asked, told   []byte // not yet parsed: what the dialling side says, and the other
	hello         *wire.Hello
	welcome       *wire.Welcome
	deaf, settled bool // the one stream, the other, is no longer listened to
}

func newTap(w *world, near, far *conn) {
	t := &tap{world: w, near: near.owner, far: far.owner}
	near.out.tap, far.out.tap = t.ask, t.tell
}

// next takes a frame off the beginning of b.
func next(b *[]byte) (wire.Frame, bool, error) {
	f, err := wire.ParseFrame(*b)
	if errors.Is(err, wire.ErrShort) {
		return f, false, nil
	}
	if err != nil {
		return f, false, err
	}
	*b = (*b)[len(f.Raw):]
	return f, true, nil
}

// ask hears the dialling side.
func (t *tap) ask(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.deaf || t.near.dead.Load() {
		return
	}
	t.asked = append(t.asked, b...)
	for {
		f, ok, err := next(&t.asked)
		if err != nil {
			t.world.fail(4, "%s wrote a broken frame to %s: %v", t.near.host.name, t.far.host.name, err)
			t.deaf = true
		}
		if !ok {
			return
		}
		switch f.Kind {
		case wire.KindHello:
			h, err := wire.ParseHello(f.Payload)
			if err != nil {
				t.world.fail(4, "%s wrote a broken HELLO: %v", t.near.host.name, err)
			}
			t.hello = &h
		case wire.KindAck:
			a, err := wire.ParseAck(f.Payload)
			if err != nil || t.hello == nil || t.welcome == nil {
				t.world.fail(6, "%s sent an ack out of place (%v)", t.near.host.name, err)
				t.deaf = true
				return
			}
			t.world.acked(t, a)
		case wire.KindTakeover:
			t.deaf = true
		}
	}
}

// tell hears the answering side, up to the answer to HELLO.
func (t *tap) tell(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.settled || t.far.dead.Load() {
		return
	}
	t.told = append(t.told, b...)
	for !t.settled {
		f, ok, err := next(&t.told)
		if err != nil {
			t.world.fail(4, "%s wrote a broken frame to %s: %v", t.far.host.name, t.near.host.name, err)
			t.settled = true
		}
		if !ok {
			return
		}
		switch f.Kind {
		case wire.KindResume, wire.KindFullSync, wire.KindRewind:
			w, err := wire.ParseWelcome(f.Kind, f.Payload)
			if err != nil || t.hello == nil {
				t.world.fail(4, "%s wrote a broken answer: %v", t.far.host.name, err)
				return
			}
			t.welcome, t.settled = &w, true
			t.world.welcomed(t, f.Kind)
		case wire.KindRefuse:
			r, _ := wire.ParseRefusal(f.Kind, f.Payload)
			t.world.event("%s refuses %s: %s", t.far.host.name, t.near.host.name, r.Code)
			t.settled = true
		case wire.KindTakeoverReply:
			t.settled = true
		}
	}
	t.told = nil
}
