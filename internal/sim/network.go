package sim

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// network connects the hosts. Every event of it has an instant of its own, so that what happens first does not depend on
// which goroutine the runtime runs first.
type network struct {
	seed  uint64
	hosts int

	// instants comes behind every other lock: pipes take it.
	instants struct {
		sync.Mutex
		last time.Time // the latest that was given away
	}

	mu sync.Mutex
	// What follows needs mu, behind which pipes' locks come.
	routes    map[[2]int]*route
	listeners map[string]*listener
	conns     []*conn // dialling ends
	dials     map[string]uint64
}

func newNetwork(seed uint64, hosts int) *network {
	n := &network{seed: seed, hosts: hosts, routes: map[[2]int]*route{}, listeners: map[string]*listener{}, dials: map[string]uint64{}}
	for a := range hosts {
		for b := range hosts {
			n.routes[[2]int{a, b}] = &route{net: n, latency: usualLatency}
		}
	}
	return n
}

// instant is t, or a little later if something else happens then.
func (n *network) instant(t time.Time) time.Time {
	i := &n.instants
	i.Lock()
	defer i.Unlock()
	t = t.Truncate(time.Microsecond).Add(137 * time.Nanosecond)
	if now := time.Now(); !t.After(now) {
		t = now.Add(time.Nanosecond)
	}
	if !t.After(i.last) && i.last.Sub(t) < time.Microsecond {
		t = i.last.Add(time.Nanosecond)
	}
	i.last = t
	return t
}

// usualLatency is how long a packet takes, more or less.
const usualLatency = 500 * time.Microsecond

// route is one direction between two hosts.
type route struct {
	net *network

	mu      sync.Mutex
	hole    bool // nothing passes, and nobody is told
	latency time.Duration
}

func (r *route) blocked() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hole
}

// slow changes how long packets take from one host to another.
func (n *network) slow(from, to int, latency time.Duration) {
	r := n.route(from, to)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.latency = latency
}

// arrival draws when a packet that leaves now is there.
func (r *route) arrival(rng *rand.Rand) time.Time {
	r.mu.Lock()
	d := r.latency/2 + time.Duration(rng.Int64N(int64(r.latency)))
	r.mu.Unlock()
	return r.net.instant(time.Now().Add(d))
}

// listener is a replication port.
type listener struct {
	net   *network
	name  string
	owner *incarnation
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// listen opens a port of an incarnation.
func (n *network) listen(owner *incarnation, port int) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	name := net.JoinHostPort(owner.host.name, strconv.Itoa(port))
	if l := n.listeners[name]; l != nil && l.owner == owner {
		return nil, syscall.EADDRINUSE
	}
	if owner.dead.Load() {
		return nil, syscall.ENETDOWN
	}
	l := &listener{net: n, name: name, owner: owner, conns: make(chan net.Conn, 16), done: make(chan struct{})}
	n.listeners[name] = l
	return l, nil
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.net.mu.Lock()
		defer l.net.mu.Unlock()
		if l.net.listeners[l.name] == l {
			delete(l.net.listeners, l.name)
		}
	})
	return nil
}

func (l *listener) Addr() net.Addr { return address(l.name) }

// dial connects an incarnation to a port.
func (n *network) dial(ctx context.Context, from *incarnation, to string) (net.Conn, error) {
	if from.dead.Load() {
		return nil, syscall.ENETDOWN
	}
	host, _, err := net.SplitHostPort(to)
	if err != nil {
		return nil, err
	}
	target := slices.Index(from.world.names(), host)
	if target < 0 {
		return nil, fmt.Errorf("no such host %q", host)
	}
	there, back := n.route(from.host.id, target), n.route(target, from.host.id)
	n.mu.Lock()
	label := from.host.name + ">" + to
	n.dials[label]++
	nth := hash(label) + n.dials[label]
	n.mu.Unlock()
	rng := rand.New(rand.NewPCG(n.seed, nth))
	select {
	case <-time.After(time.Until(there.arrival(rng))):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	// Nobody answers: it is asked again, and after the fifth time, half a minute later, given up.
	for again := time.Second; there.blocked() || back.blocked() || from.world.hosts[target].dark.Load(); again *= 2 {
		if again > 16*time.Second {
			return nil, errTimeout
		}
		select {
		case <-time.After(time.Until(n.instant(time.Now().Add(again)))):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	n.mu.Lock()
	l := n.listeners[to]
	n.mu.Unlock()
	if l == nil || l.owner.dead.Load() || from.dead.Load() {
		return nil, syscall.ECONNREFUSED
	}
	forth, reply := newPipe(there, rng), newPipe(back, rand.New(rand.NewPCG(n.seed+1, nth)))
	near := &conn{in: reply, out: forth, owner: from, label: label}
	far := &conn{in: forth, out: reply, owner: l.owner, label: label, peer: near}
	near.peer = far
	newTap(from.world, near, far)
	select {
	case l.conns <- far:
	case <-l.done:
		return nil, syscall.ECONNREFUSED
	}
	n.mu.Lock()
	n.conns = append(n.conns, near)
	n.mu.Unlock()
	return near, nil
}

func hash(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s)) // never fails
	return h.Sum64()
}

func (n *network) route(a, b int) *route { return n.routes[[2]int{a, b}] }

// between are the connections between two hosts, or of one host if b is -1.
func (n *network) between(a, b int) []*conn {
	n.mu.Lock()
	defer n.mu.Unlock()
	var found []*conn
	for _, c := range n.conns {
		x, y := c.owner.host.id, c.peer.owner.host.id
		if x == a && (b < 0 || y == b) || y == a && (b < 0 || x == b) {
			found = append(found, c)
		}
	}
	return found
}

// block makes or heals a one-way hole.
func (n *network) block(from, to int, hole bool) {
	r := n.route(from, to)
	r.mu.Lock()
	r.hole = hole
	r.mu.Unlock()
	if hole {
		return
	}
	for _, c := range n.between(from, to) {
		c.in.resume()
		c.out.resume()
	}
}

// cut breaks the connections between two hosts: what is on its way is truncated, and each end hears of it, or only one.
func (n *network) cut(a, b int, rng *rand.Rand) (broken int) {
	for _, c := range n.between(a, b) {
		c.in.cutAfter(rng.Float64())
		if rng.IntN(4) > 0 {
			c.out.cutAfter(rng.Float64())
		}
		broken++
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns = slices.DeleteFunc(n.conns, func(c *conn) bool { return c.in.done() && c.out.done() })
	return broken
}

func (p *pipe) done() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended && len(p.flying) == 0
}

// leave takes a dead process's connections away. A kernel that lives on sends what was written, and ends them; a machine
// without power says nothing, and its peers wait.
func (n *network) leave(who *incarnation, silent bool) {
	n.mu.Lock()
	var mine []*conn
	for _, c := range n.conns {
		if c.owner == who {
			mine = append(mine, c)
		}
		if c.peer.owner == who {
			mine = append(mine, c.peer)
		}
	}
	for name, l := range n.listeners {
		if l.owner == who {
			delete(n.listeners, name)
		}
	}
	n.mu.Unlock()
	for _, c := range mine {
		c.in.deafen()
		switch {
		case silent:
			c.out.mute()
		case c.out.route.blocked():
			c.out.finish()
		default:
			c.out.finish()
			c.in.fail(syscall.ECONNRESET, false)
		}
	}
}

// refuse tells the peers of a machine that is back that it knows nothing of their connections.
func (n *network) refuse(h int) {
	for _, c := range n.between(h, -1) {
		if c.owner.dead.Load() || c.peer.owner.dead.Load() {
			c.reset()
			c.peer.reset()
		}
	}
}
