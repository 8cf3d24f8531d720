package server

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/understudy-kv/understudy/internal/netpoll"
	"github.com/understudy-kv/understudy/internal/polite"
	"github.com/understudy-kv/understudy/internal/resp"
	"github.com/understudy-kv/understudy/internal/shard"
)

// A reactor serves many connections on one goroutine: it waits for those that have sent something, reads once from each,
// has all that they ask executed as one group a shard, and writes once to each. So a client that sends one command at a
// time shares the log's write, the feeders' wake-up and the switches between goroutines with all the others.
//
// A reactor waits for nothing but its epoll. A connection whose next step may wait (a transaction, a command of several
// keys as one, an fsync before the reply, a held write, replies that its client does not read) gets a goroutine that
// carries on in the way of conn.serve, and gives it back when it has done all that was sent.
//
// Invariants:
//
//  1. A connection has one owner from the moment its state leaves idle: the reactor, or its goroutine.
//  2. The epoll reports edges. What is reported while somebody owns the connection makes its state again, and the owner
//     reads before it gives the connection up. Who has read less than there was room for has read all; who has read more,
//     or knows of the stream's end, reads again first.
//  3. The socket is closed by the owner, in end. Others shut it down, which the epoll reports.
type reactor struct {
	all   *reactors
	epoll int
	wake  int // an eventfd: there is something else to look at than sockets
	done  chan struct{}
	dozes atomic.Bool // there are other processors than those that the reactors keep meanwhile

	mu struct {
		sync.Mutex
		seats   []seat // by what the epoll is told
		free    []int32
		closing bool // run is to return
		closed  bool // it has
	}

	// What follows belongs to the reactor's goroutine.
	events  []unix.EpollEvent
	links   []netpoll.Watcher // to be served
	ready   []*conn           // owned, to be read from
	next    []*conn           // the same, in the next round
	offered []*conn           // owned, their commands are at the shards
	now     time.Time
	looked  time.Time     // when idle connections were looked for
	counted time.Time     // when the processors were
	took    time.Duration // what the commands of a connection took of late, on average, until they were planned or answered
	spread  time.Time     // until then every connection gets a goroutine
	before  time.Time     // when the last round began
	usage   usage
	asked   int        // commands of the offered connections,
	got     int        // and the bytes that were read for them
	crowd   int        // connections of a round on average, times crowdOver
	hold    shard.Hold // what replicas were not told of yet,
	held    time.Time  // since then,
	bytes   int        // and the bytes that were read for it
	spin    spin
	woke    bool // it has yielded to others since it waited last
}

// seat is the place of a connection in a reactor, a client's or another one. Its number tells the events of the connections that had it before.
type seat struct {
	c      *conn
	other  netpoll.Watcher
	number int32
}

const (
	// maxReady is how many connections one round takes at most, beside those that it has not read to the end.
	maxReady = 256
	// largeWrite is the size from which on a reactor leaves the writing to a goroutine.
	largeWrite = 256 << 10
	// slowBegin is the time that the commands of a connection may take on average before the reactor leaves them to goroutines,
	// for spreadFor, since it is the disk that takes it, and a disk serves many readers better than one. One connection
	// counts for at most slowest: what another process took of the core's time is no sign.
	slowBegin = 100 * time.Microsecond
	slowest   = time.Millisecond
	// lingerFor is about what a wake-up of a thread costs.
	lingerFor = 5 * time.Microsecond
	// dozeFor is how many milliseconds a reactor dozes at most before it sleeps: so long that it seldom happens while clients have
	// anything to say.
	dozeFor   = 10
	spreadFor = 100 * time.Millisecond
	// While a busy reactor has rounds of at least holdFrom connections without pipelines, and of holdCrowd on average, within holdFor of each
	// other, replicas are told of what was written once in about as long, or for so many bytes: each time costs a send and a wake-up for
	// each shard and replica, and a processor that the reactor shares with whom it wakes. As soon as it finds nothing to do it tells them.
	holdFrom  = 4
	holdCrowd = 12
	crowdOver = 64 // rounds
	holdFor   = time.Millisecond
	holdBytes = 32 << 10
	// countEvery is after how long the processors are counted again.
	countEvery = time.Second
)

func (r *reactor) run() {
	defer close(r.done)
	// A goroutine that runs on another thread now and then is, for the kernel, one thread that falls asleep and another one that wakes up, on
	// whichever processor that ran last.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer polite.Keep(r.poke)()
	defer r.hold.Announce()
	for r.wait() {
		// Replication comes first: who reads here behind a reply of the primary finds what it has written.
		for _, w := range r.links {
			w.Serve()
		}
		clear(r.links)
		r.links = r.links[:0]
		for _, c := range r.ready {
			r.read(c)
		}
		r.settle()
		clear(r.ready)
		r.ready, r.next = r.next, r.ready[:0]
	}
}

// wait finds the connections that have sent something. It returns false when the reactor is to end.
func (r *reactor) wait() bool {
	var idle time.Time // since then, if it is
	n := r.poll(0)
	if n == 0 && len(r.ready) == 0 {
		r.hold.Announce()
		idle = time.Now()
		// What the last round has woken runs before this goroutine sleeps. Nobody is yielded to for nothing: that wakes a thread.
		if netpoll.Woken() {
			r.yield()
			n = r.poll(0)
		}
		if n == 0 && r.spin.worth() {
			n = r.linger()
		}
		if n == 0 {
			n = r.sleep()
		}
	}
	r.before, r.now, r.woke = r.now, time.Now(), false
	r.usage.note(r.before, idle, r.now)
	if !r.hold.Empty() && r.now.Sub(r.held) >= holdFor {
		r.hold.Announce()
	}
	r.countProcessors()
	r.lookForIdle()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events[:n] {
		if e.Fd < 0 {
			var b [8]byte
			_, _ = unix.Read(r.wake, b[:])
			continue
		}
		switch at := r.mu.seats[e.Fd]; {
		case at.number != e.Pad:
		case at.c != nil:
			r.noteLocked(at.c, e.Events)
		case at.other != nil && at.other.Report(e.Events):
			r.links = append(r.links, at.other)
		}
	}
	return !r.mu.closing
}

// noteLocked takes what the epoll has reported of a connection.
func (r *reactor) noteLocked(c *conn, events uint32) {
	k := c.socket
	const hungUp = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	if events&hungUp != 0 {
		k.ended.Store(true)
	}
	// The owner may give the connection up between two looks at its state, so it is looked at until one of them holds.
	for events&(unix.EPOLLIN|hungUp) != 0 {
		if k.state.CompareAndSwap(idle, busy) {
			r.ready = append(r.ready, c)
			return
		}
		if k.state.CompareAndSwap(busy, again) || k.state.Load() == again {
			break
		}
	}
	if events&(unix.EPOLLOUT|hungUp) != 0 {
		select {
		case k.writable <- struct{}{}:
		default:
		}
	}
}

// sleep waits until there is something to do, or returns 0 before.
//
// It keeps the runtime's processor for a while (netpoll.Doze), and for as long as somebody works in the background: who writes a table hands
// each block of it to another goroutine, and where a processor has nothing to do that wakes a thread each time.
// Who begins to work pokes the reactor.
func (r *reactor) sleep() (n int) {
	dozes := r.dozes.Load()
	if dozes && !r.woke {
		if n = netpoll.Doze(r.epoll, r.events, dozeFor); n > 0 {
			return n
		}
	}
	switch {
	case !dozes || !polite.AtWork():
		return r.poll(r.patience())
	case r.woke:
		// One time of 61 the runtime goes on with who yields before those that were woken here. Where other processors are taken nobody
		// else would take them over.
		runtime.Gosched()
		if n = r.poll(0); n > 0 {
			return n
		}
		return r.poll(dozeFor) // and dozes from then on
	}
	return 0
}

// yield lets others run. They may have more to do than that, so the reactor does not keep its processor when it waits next.
func (r *reactor) yield() {
	r.woke = true
	runtime.Gosched()
}

func (r *reactor) poll(timeout int) int {
	if timeout == 0 {
		return netpoll.Poll(r.epoll, r.events)
	}
	n, _ := unix.EpollWait(r.epoll, r.events, timeout) // fails with EINTR only
	return max(n, 0)
}

// linger polls for a while before the reactor sleeps. To be woken takes as long, and costs more: half of it is at the expense of who
// sends. It does not yield to other processes, which may take some ms: who sleeps is woken at once.
func (r *reactor) linger() (n int) {
	for begun := time.Now(); n == 0 && time.Since(begun) < lingerFor; {
		n = r.poll(0)
	}
	r.spin.note(n > 0)
	return n
}

// countProcessors looks now and then how many processors there are: the runtime follows the limit of a container.
func (r *reactor) countProcessors() {
	if r.now.Sub(r.counted) < countEvery {
		return
	}
	r.counted = r.now
	r.dozes.Store(polite.Processors() > max(int(r.all.count.Load()), 1))
}

// patience is how long the reactor may sleep, in milliseconds.
func (r *reactor) patience() int {
	limit := r.all.timeout()
	if limit == 0 {
		return -1
	}
	return int(min(max(limit/8, time.Millisecond), time.Second) / time.Millisecond)
}

// lookForIdle ends the connections that have sent nothing for too long.
func (r *reactor) lookForIdle() {
	limit := r.all.timeout()
	if limit == 0 || r.now.Sub(r.looked) < time.Duration(r.patience())*time.Millisecond {
		return
	}
	r.looked = r.now
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, at := range r.mu.seats {
		if c := at.c; c != nil && c.socket.state.Load() == idle && r.now.UnixNano()-c.active.Load() >= int64(limit) {
			_ = c.socket.shutdown(unix.SHUT_RD)
		}
	}
}

// read takes what the connection has sent and plans it.
func (r *reactor) read(c *conn) {
	k := c.socket
	if c.s.stopped() || c.closed.Load() {
		r.end(c)
		return
	}
	n, err := c.fill(r.now)
	if n == 0 {
		if err == unix.EAGAIN {
			k.state.Store(idle)
			return
		}
		r.end(c)
		return
	}
	broken := c.parse()
	if r.now.Before(r.spread) {
		r.carryOn(c)
		return
	}
	if len(c.cmds) > 0 {
		begun := time.Now()
		c.begin(quiet{c})
		r.note(time.Since(begun))
	}
	switch {
	case broken != resp.ErrShort || c.planned < len(c.cmds) || c.session.Syncs():
		r.carryOn(c)
	case len(c.cmds) == 0:
		r.giveBack(c)
	default:
		c.session.Offer()
		r.offered = append(r.offered, c)
		r.asked += len(c.cmds)
		r.got += n
	}
}

// note takes what the commands of one connection took.
func (r *reactor) note(d time.Duration) {
	if r.took += (min(d, slowest) - r.took) / 64; r.took > slowBegin {
		r.took, r.spread = 0, r.now.Add(spreadFor)
	}
}

// quiet is the sink of a connection that is not to be written to now.
type quiet struct{ *conn }

func (q quiet) Flush() error { return nil }
func (q quiet) Send(b []byte) error {
	q.w.Buf = append(q.w.Buf, b...)
	return nil
}

// settle answers what was offered.
func (r *reactor) settle() {
	// All shards' groups come before the first reply: what they send to replicas leaves together, and a replica has the writes as soon as
	// their clients know of them, unless they are held. So the feeders that were woken send first, too.
	hold := r.holds()
	for _, c := range r.offered {
		c.session.Execute(hold)
	}
	if hold == nil {
		r.hold.Announce()
	}
	if len(r.offered) > 0 && netpoll.Woken() {
		r.yield()
	}
	late := r.offered[:0]
	for _, c := range r.offered {
		if !r.answer(c) {
			late = append(late, c)
		}
	}
	if len(late) > 0 {
		runtime.Gosched() // somebody else is at the shard
		for _, c := range late {
			if !r.answer(c) {
				r.carryOn(c)
			}
		}
	}
	clear(r.offered)
	r.offered = r.offered[:0]
}

// holds returns where to note what replicas hear of later, or nil if they are to hear of what is offered now.
func (r *reactor) holds() *shard.Hold {
	if r.hold.Empty() {
		r.held, r.bytes = r.now, 0
	}
	r.bytes += r.got
	pipelines := r.asked > 2*len(r.offered)
	r.asked, r.got = 0, 0
	if n := len(r.offered); n > 0 {
		r.crowd += n - r.crowd/crowdOver
	}
	// Some clients come together, and the reactor is busy, whenever another process has had its processor for a moment, too. That is no
	// reason to let replicas wait.
	if r.crowd < holdCrowd*crowdOver || !r.usage.high() || len(r.offered) < holdFrom || pipelines || r.now.Sub(r.before) >= holdFor || r.bytes > holdBytes {
		return nil
	}
	return &r.hold
}

// answer sends the replies of a connection if they are there, and reports whether they were.
func (r *reactor) answer(c *conn) bool {
	if !c.session.Settle(quiet{c}) {
		return false
	}
	c.executed()
	k := c.socket
	if len(c.w.Buf) > largeWrite {
		r.carryOn(c)
		return true
	}
	n, err := netpoll.Write(k.fd, c.w.Buf)
	c.s.stats.netOut.Add(uint64(max(n, 0)))
	switch {
	case n == len(c.w.Buf):
		c.sent()
		r.giveBack(c)
	case err == nil || err == unix.EAGAIN || err == unix.EINTR:
		c.w.Buf = append(c.w.Buf[:0], c.w.Buf[max(n, 0):]...)
		r.carryOn(c)
	default:
		r.end(c)
	}
	return true
}

// giveBack gives up the connection, unless there may be more to read.
func (r *reactor) giveBack(c *conn) {
	if c.socket.more() {
		r.next = append(r.next, c)
		return
	}
	c.socket.state.Store(idle)
}

// carryOn leaves the connection to a goroutine.
func (r *reactor) carryOn(c *conn) {
	if c.socket.more() {
		c.socket.state.Store(again)
	}
	// It owns the connection, and ends when it has done what the client has sent, or with the connection; Shutdown waits
	// for that.
	go c.carryOn()
	netpoll.Wake()
}

func (c *conn) carryOn() {
	k := c.socket
	for c.executeBuffered() == nil && !c.ending {
		if k.state.CompareAndSwap(busy, idle) {
			return
		}
		k.state.Store(busy) // what happens from here on is read below, or makes it again once more
		if c.s.stopped() {
			break
		}
		n, err := c.fill(time.Now())
		if n == 0 && err != unix.EAGAIN {
			break
		}
		if k.more() {
			k.state.Store(again)
		}
	}
	k.reactor.end(c)
}
