package sim

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// window is how many bytes a direction of a connection takes before its writer waits, as a socket's buffers do.
const window = 64 << 10

// conn is one end of a connection.
type conn struct {
	in, out *pipe
	owner   *incarnation
	peer    *conn
	label   string
	write   sync.Mutex // one Write at a time
	once    sync.Once
}

func (c *conn) Read(b []byte) (int, error) { return c.in.read(b) }

// Write hands b to the network, and to whoever listens in, as one.
func (c *conn) Write(b []byte) (int, error) {
	c.write.Lock()
	defer c.write.Unlock()
	return c.out.send(b)
}

// Close sends what was written and then an end; the other end reads both.
func (c *conn) Close() error {
	err := error(net.ErrClosed)
	c.once.Do(func() {
		err = nil
		c.out.finish()
		c.in.fail(net.ErrClosed, true)
	})
	return err
}

// reset breaks the connection for this end, at once.
func (c *conn) reset() {
	c.out.fail(syscall.ECONNRESET, true)
	c.in.fail(syscall.ECONNRESET, true)
}

func (c *conn) LocalAddr() net.Addr  { return address(c.label) }
func (c *conn) RemoteAddr() net.Addr { return address(c.label) }

func (c *conn) SetDeadline(t time.Time) error {
	c.in.readBy.set(t)
	c.out.writeBy.set(t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error  { c.in.readBy.set(t); return nil }
func (c *conn) SetWriteDeadline(t time.Time) error { c.out.writeBy.set(t); return nil }

// address is a net.Addr.
type address string

func (a address) Network() string { return "sim" }
func (a address) String() string  { return string(a) }

// packet is bytes on their way.
type packet struct {
	at    time.Time
	bytes []byte
	end   bool
}

// pipe is one direction of a connection. Bytes arrive in order and whole, later.
type pipe struct {
	route   *route
	tap     func([]byte) // hears what is written; may be nil
	readBy  deadline
	writeBy deadline

	mu sync.Mutex
	// What follows needs mu.
	rng     *rand.Rand
	flying  []packet
	flight  int // bytes in flying and ready
	ready   []byte
	ended   bool  // the writer has ended, and everything has arrived
	readErr error // of the reader
	sendErr error // of the writer
	timer   *time.Timer
	changed chan struct{} // closed at the next change
}

func newPipe(r *route, rng *rand.Rand) *pipe {
	return &pipe{route: r, rng: rng, changed: make(chan struct{}), readBy: newDeadline(), writeBy: newDeadline()}
}

func (p *pipe) changedLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *pipe) read(b []byte) (int, error) {
	for {
		p.mu.Lock()
		if len(p.ready) > 0 && p.readErr == nil {
			n := copy(b, p.ready)
			p.ready = p.ready[n:]
			p.flight -= n
			p.changedLocked()
			p.mu.Unlock()
			return n, nil
		}
		err, ended, changed := p.readErr, p.ended, p.changed
		p.mu.Unlock()
		switch {
		case err != nil:
			return 0, err
		case ended:
			return 0, io.EOF
		}
		late := p.readBy.wait()
		select {
		case <-changed:
		case <-late:
			return 0, os.ErrDeadlineExceeded
		}
	}
}

// send takes b a window at a time.
func (p *pipe) send(b []byte) (n int, err error) {
	for len(b) > 0 {
		p.mu.Lock()
		err, room, changed := p.sendErr, window-p.flight, p.changed
		if err == nil && room > 0 {
			k := min(room, len(b))
			if p.tap != nil {
				p.tap(b[:k])
			}
			p.launchLocked(b[:k])
			b, n = b[k:], n+k
			p.mu.Unlock()
			continue
		}
		p.mu.Unlock()
		if err != nil {
			return n, err
		}
		select {
		case <-changed:
		case <-p.writeBy.wait():
			return n, os.ErrDeadlineExceeded
		}
	}
	return n, nil
}

// launchLocked puts b on its way, sometimes in pieces.
func (p *pipe) launchLocked(b []byte) {
	p.flight += len(b)
	for len(b) > 0 {
		k := len(b)
		if k > 1 && p.rng.IntN(4) == 0 {
			k = 1 + p.rng.IntN(k-1)
		}
		p.queueLocked(packet{bytes: append([]byte(nil), b[:k]...)})
		b = b[k:]
	}
}

func (p *pipe) queueLocked(k packet) {
	k.at = p.route.arrival(p.rng)
	if n := len(p.flying); n > 0 && !k.at.After(p.flying[n-1].at) {
		k.at = p.route.net.instant(p.flying[n-1].at)
	}
	p.flying = append(p.flying, k)
	if len(p.flying) == 1 {
		p.armLocked()
	}
}

// armLocked waits for the first packet's time.
func (p *pipe) armLocked() {
	d := time.Until(p.flying[0].at)
	if p.timer == nil {
		p.timer = time.AfterFunc(d, p.deliver)
		return
	}
	p.timer.Reset(d)
}

// deliver hands the first packet over, unless nothing passes here: then it waits for the heal.
func (p *pipe) deliver() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.flying) == 0 || p.route.blocked() || p.flying[0].at.After(time.Now()) {
		return
	}
	k := p.flying[0]
	p.flying = p.flying[1:]
	p.ready = append(p.ready, k.bytes...)
	p.ended = p.ended || k.end
	p.changedLocked()
	if len(p.flying) > 0 {
		p.armLocked()
	}
}

// resume goes on behind a heal.
func (p *pipe) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.flying) > 0 {
		p.flying[0].at = p.route.net.instant(time.Now().Add(time.Millisecond))
		p.armLocked()
	}
}

// finish ends the writer's side behind what was written.
func (p *pipe) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sendErr == nil {
		p.sendErr = net.ErrClosed
		p.queueLocked(packet{end: true})
		p.changedLocked()
	}
}

// deafen ends the reader's side, of which the writer does not hear; mute the writer's, of which the reader does not.
func (p *pipe) deafen() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.readErr = syscall.ECONNRESET
	p.changedLocked()
}

func (p *pipe) mute() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sendErr = syscall.ENETDOWN
	p.changedLocked()
}

// fail ends both sides. What is on its way is lost; truncate also loses what has arrived and was not read.
func (p *pipe) fail(err error, truncate bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sendErr == nil {
		p.sendErr = err
	}
	if truncate && p.readErr == nil {
		p.readErr = err
	}
	p.flying, p.ended = nil, true
	if p.timer != nil {
		p.timer.Stop()
	}
	p.changedLocked()
}

// cutAfter loses everything behind the first n bytes that are on their way, and the connection with it: the reader gets a
// truncated stream and then an error, the writer an error at its next write.
func (p *pipe) cutAfter(share float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, k := range p.flying {
		n += len(k.bytes)
	}
	n = int(share * float64(n))
	for _, k := range p.flying {
		if n < len(k.bytes) {
			p.ready = append(p.ready, k.bytes[:n]...)
			break
		}
		p.ready, n = append(p.ready, k.bytes...), n-len(k.bytes)
	}
	p.flying, p.ended = nil, true
	if p.sendErr == nil {
		p.sendErr = syscall.ECONNRESET
	}
	if p.timer != nil {
		p.timer.Stop()
	}
	p.changedLocked()
}

// deadline is a time by which something must be done.
type deadline struct {
	mu    *sync.Mutex
	state *deadlineState
}

type deadlineState struct {
	timer *time.Timer
	late  chan struct{}
}

func newDeadline() deadline {
	return deadline{mu: new(sync.Mutex), state: &deadlineState{late: make(chan struct{})}}
}

func (d deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.state
	if s.timer != nil && !s.timer.Stop() {
		<-s.late // the timer has fired, or is about to
	}
	s.timer = nil
	select {
	case <-s.late:
		s.late = make(chan struct{})
	default:
	}
	switch left := time.Until(t); {
	case t.IsZero():
	case left <= 0:
		close(s.late)
	default:
		late := s.late
		s.timer = time.AfterFunc(left, func() { close(late) })
	}
}

func (d deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state.late
}

var errTimeout = errors.New("i/o timeout")
