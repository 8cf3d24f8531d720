package sim

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/wire"
)

// Violation is a broken invariant.
type Violation struct {
	Invariant int // its number in the package's comment
	Text      string
}

func (v *Violation) Error() string { return fmt.Sprintf("invariant %d: %s", v.Invariant, v.Text) }

// world is a system and everything that is known of it.
//
// The driver is the goroutine that runs the schedule. Only it changes hosts, starts and stops processes, and checks.
type world struct {
	sc     Scenario
	net    *network
	hosts  []*host
	hist   *history
	log    hclog.Logger // of the nodes, nil for none
	start  time.Time
	leader atomic.Int64 // who the schedule holds to be the primary

	// What follows belongs to the driver.
	tracks  map[place]*track
	tasks   []*task
	zombies sync.WaitGroup // dead processes that are being closed
	handing atomic.Bool    // a handover was begun, and it is not known how it ended: it outlives processes

	mu struct {
		sync.Mutex
		lines     []string
		violation *Violation
		promises  map[place][]promise
		claims    map[claimant]promise
	}
}

// place is one shard of one host.
type place struct{ host, shard int }

// claimant is a replica's session on one shard, as the primary's process sees it.
type claimant struct {
	at *incarnation
	place
}

// promise is what a host must go on to have, until its history forks from that lineage before it: everything before
// applied, and after a loss of power everything before durable.
type promise struct {
	lineage          wire.Lineage
	applied, durable uint64
	why              string
}

// task is a call that may take a while.
type task struct {
	name  string
	began time.Time
	limit time.Duration
	ended time.Time // valid behind done
	done  chan struct{}
}

func newWorld(sc Scenario, log hclog.Logger) *world {
	w := &world{sc: sc, net: newNetwork(sc.Seed, sc.Nodes), hist: newHistory(sc.Shards), log: log, start: time.Now(), tracks: map[place]*track{}}
	w.mu.promises, w.mu.claims = map[place][]promise{}, map[claimant]promise{}
	for i := range sc.Nodes {
		h := &host{world: w, id: i, name: fmt.Sprint("n", i), disk: image{dirs: map[string]bool{"/": true}}.write(), boot: 1}
		if i > 0 {
			h.first = w.hosts[0].address()
			if sc.Chain {
				h.first = w.hosts[i-1].address()
			}
		}
		w.hosts = append(w.hosts, h)
	}
	return w
}

func (w *world) names() []string {
	names := make([]string, len(w.hosts))
	for i, h := range w.hosts {
		names[i] = h.name
	}
	return names
}

// event writes a line of the transcript.
func (w *world) event(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.lines = append(w.mu.lines, fmt.Sprintf("%9.4fs  ", time.Since(w.start).Seconds())+fmt.Sprintf(format, args...))
}

// fail notes a broken invariant. The first one counts.
func (w *world) fail(invariant int, format string, args ...any) {
	v := &Violation{invariant, fmt.Sprintf(format, args...)}
	w.mu.Lock()
	first := w.mu.violation == nil
	if first {
		w.mu.violation = v
	}
	w.mu.Unlock()
	if first {
		w.event("VIOLATION %v", v)
	}
}

func (w *world) violation() *Violation {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.violation
}

// spawn starts a call, waits for it for a moment, and leaves it to itself then.
func (w *world) spawn(name string, moment, limit time.Duration, f func()) {
	t := &task{name: name, began: time.Now(), limit: limit, done: make(chan struct{})}
	w.tasks = append(w.tasks, t)
	// The call's goroutine ends with the call; settle waits for all of them.
	go func() {
		defer close(t.done)
		f()
		t.ended = time.Now()
	}()
	select {
	case <-t.done:
	case <-time.After(moment):
	}
}

// overdue forgets calls that have ended, and reports those that should have.
func (w *world) overdue() {
	w.tasks = slices.DeleteFunc(w.tasks, func(t *task) bool {
		now, ended := time.Now(), false
		select {
		case <-t.done:
			now, ended = t.ended, true
		default:
		}
		if now.Sub(t.began) > t.limit {
			w.fail(4, "%s has not returned after %s", t.name, t.limit)
		}
		return ended
	})
}

// up are the hosts with a living process.
func (w *world) up() (up []*host) {
	for _, h := range w.hosts {
		if h.run != nil && !h.run.dead.Load() {
			up = append(up, h)
		}
	}
	return up
}

// at is a step's host, nil if there is none, or it is down.
func (w *world) at(n int) *host {
	if n == Leader {
		n = int(w.leader.Load())
	}
	if n < 0 || n >= len(w.hosts) || w.hosts[n].run == nil || w.hosts[n].run.dead.Load() {
		return nil
	}
	return w.hosts[n]
}
