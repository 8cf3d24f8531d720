package replica

import (
	"sync"

	"github.com/understudy-kv/understudy/wire"
)

// outbox is what a session has to say. Whoever has something puts it here; one goroutine writes it to the connection.
// Acks are coalesced: only the newest is ever sent. What else is said is a handful of frames a session.
type outbox struct {
	mu struct {
		sync.Mutex
		frames  []byte
		ack     wire.Ack
		due     bool // ack is to be sent
		closing bool // nothing more is accepted; what is here is the last
	}
	wake  chan struct{} // capacity 1
	taken chan struct{} // capacity 1: take was called
}

func newOutbox() *outbox { return &outbox{wake: make(chan struct{}, 1), taken: make(chan struct{}, 1)} }

func (o *outbox) signal() { signal(o.wake) }

// signal leaves a token in a channel of capacity 1. A nil channel takes none.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (o *outbox) push(frame []byte) {
	o.mu.Lock()
	if !o.mu.closing {
		o.mu.frames = append(o.mu.frames, frame...)
	}
	o.mu.Unlock()
	o.signal()
}

// pushBehind is push, once less than ahead bytes wait to be taken. It reports false, and pushes nothing, if done is closed
// before. One goroutine calls it.
func (o *outbox) pushBehind(frame []byte, ahead int, done <-chan struct{}) bool {
	for {
		o.mu.Lock()
		waiting := len(o.mu.frames)
		o.mu.Unlock()
		if waiting < ahead {
			o.push(frame)
			return true
		}
		select {
		case <-o.taken:
		case <-done:
			return false
		}
	}
}

// ack makes an ack due; the caller has it sent. Who made it may come here behind somebody with a later one, and an ack that
// goes back is a protocol error: so what was said once is not taken back.
func (o *outbox) ack(a wire.Ack) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := &o.mu.ack
	n.Received, n.Applied, n.Durable = max(n.Received, a.Received), max(n.Applied, a.Applied), max(n.Durable, a.Durable)
	o.mu.due = true
}

// takeAck moves the ack into buf, if one is due and nothing else is to be said before it.
func (o *outbox) takeAck(buf []byte) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	buf = buf[:0]
	if o.mu.due && !o.mu.closing && len(o.mu.frames) == 0 {
		buf = wire.AppendAck(buf, o.mu.ack)
		o.mu.due = false
	}
	return buf
}

// close has last, if any, sent behind what is here, and nothing after it.
func (o *outbox) close(last []byte) {
	o.mu.Lock()
	if !o.mu.closing {
		o.mu.frames = append(o.mu.frames, last...)
		o.mu.closing = true
	}
	o.mu.Unlock()
	o.signal()
}

// take appends what is to be written to buf, and reports whether it is the last.
func (o *outbox) take(buf []byte) (_ []byte, last bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	buf = append(buf, o.mu.frames...)
	o.mu.frames = o.mu.frames[:0]
	if o.mu.due && !o.mu.closing {
		buf = wire.AppendAck(buf, o.mu.ack)
	}
	o.mu.due = false
	select {
	case o.taken <- struct{}{}:
	default:
	}
	return buf, o.mu.closing
}
