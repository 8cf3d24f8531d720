package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/understudy-kv/understudy/internal/node"
	"github.com/understudy-kv/understudy/wire"
)

// Follower is all links of a node: one per shard of the primary. Its methods are safe for concurrent use.
//
// Lock order: layoutMu, then mu, then a runner's mu. Only layoutMu is held during IO, and never while a link is waited
// for.
type Follower struct {
	opts    FollowerOptions
	host    string
	base    int
	started time.Time
	pacer   *pacer // nil without a limit

	ctx    context.Context // ends all links
	cancel context.CancelFunc
	links  sync.WaitGroup

	layoutMu sync.Mutex  // changes of the data set, and of mixed
	mixed    atomic.Bool // what the store has recorded: see Mixed
	mu       struct {
		sync.Mutex
		runners []*runner
		shards  int           // of the primary as far as known, 0 before the first answer
		shown   int           // of the data set that readers see, 0 while there is none
		pending bool          // the runners feed a data set that readers do not see yet
		alarm   error         // why they may not see it, though it is complete
		leaving bool          // what was received is to be applied before the links end
		parent  *wire.Welcome // the last answer, for the primary's place in its chain
		reached chan struct{} // closed and replaced when a link's dial succeeds
		closed  bool
	}
}

// NewFollower starts following. The store must stay open until [Follower.Close] has returned.
func NewFollower(o FollowerOptions) (*Follower, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("replica: %w", err)
	}
	f := &Follower{opts: o, started: time.Now()}
	f.mu.reached = make(chan struct{})
	f.host, f.base, _ = node.SplitAddress(o.Primary) // Validate has tested it
	if o.SyncRate > 0 {
		f.pacer = &pacer{rate: o.SyncRate}
	}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	shards := o.Store.Shards()
	f.mu.shards, f.mu.shown = len(shards), len(shards)
	f.mixed.Store(o.Store.Mixed())
	if len(shards) == 0 {
		f.start([]*runner{f.newRunner(0, 0, nil)}) // it learns the shard count and has the others started
		return f, nil
	}
	f.start(f.runnersFor(shards, 0))
	return f, nil
}

// now is the clock of the links: time since the follower was made.
func (f *Follower) now() time.Duration { return time.Since(f.started) }

// runnersFor makes the runners of the shards from the first-th on.
func (f *Follower) runnersFor(shards []Shard, first int) []*runner {
	var rs []*runner
	for id := first; id < len(shards); id++ {
		rs = append(rs, f.newRunner(id, len(shards), shards[id]))
	}
	return rs
}

// reached is closed when any link's dial succeeds after this call.
func (f *Follower) reached() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.reached
}

// reach tells the links that could not reach the primary that it is there again.
func (f *Follower) reach() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.mu.reached)
	f.mu.reached = make(chan struct{})
}

// start adds the runners and starts their links.
func (f *Follower) start(rs []*runner) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range rs {
		if f.mu.closed {
			return
		}
		ctx, cancel := context.WithCancel(f.ctx)
		r.cancel = cancel
		f.mu.runners = append(f.mu.runners, r)
		// The link's goroutine owns its session and is the only one to dial. It ends when ctx does, by Close or by a
		// change of the shard count; both wait for it.
		f.links.Go(func() {
			defer cancel()
			r.drive(ctx)
		})
	}
}

// Close is Stop(false).
func (f *Follower) Close() error { return f.Stop(false) }

// Stop ends all links and waits for them, but never for the primary. With drain, what was received is applied first;
// otherwise it is asked for again by whoever follows next. Nothing is applied after it has returned.
func (f *Follower) Stop(drain bool) error {
	f.mu.Lock()
	f.mu.closed = true
	f.mu.leaving = drain
	f.mu.Unlock()
	f.cancel()
	f.links.Wait()
	return nil
}

// stopEvent is what ends the links.
func (f *Follower) stopEvent() Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.leaving {
		return Event{Kind: EventStop, Err: errLeaving}
	}
	return Event{Kind: EventStop}
}

// Discard removes what full syncs have staged and not loaded: it belongs to a primary that is not followed any more. The
// follower has been stopped.
func (f *Follower) Discard() error {
	var errs []error
	for _, s := range f.opts.Store.Shards() {
		errs = append(errs, discardStaging(f.opts.FS, s.Dir()))
	}
	return errors.Join(errs...)
}

// place notes where the primary stands in its chain.
func (f *Follower) place(w *wire.Welcome) {
	f.mu.Lock()
	before := f.mu.parent
	f.mu.parent = w
	f.mu.Unlock()
	if before == nil || !slices.Equal(before.Path, w.Path) {
		f.opts.OnChange()
	}
}

// Path are the node ids from the root of the chain down to the primary, as of its last answer; nil before the first.
func (f *Follower) Path() []wire.ID {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.parent == nil {
		return nil
	}
	return f.mu.parent.Path
}

// Upstream is where clients reach the primary, "host:port", as of its last answer; "" if it did not say.
func (f *Follower) Upstream() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.parent == nil {
		return ""
	}
	return f.mu.parent.Announce
}

// LagMillis is the worst shard's; see [Lag].
func (f *Follower) LagMillis() float64 { return f.Lag().Millis }

// claimedShards is the shard count that HELLO says for a shard at the position. While a data set for another count is
// being fetched, its empty shards come with the count of the data set that is being replaced, so that the primary tells
// the true reason of the full sync, shard-layout.
func (f *Follower) claimedShards(at wire.Position) uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.pending && at.IsZero() {
		return uint32(f.mu.shown)
	}
	return uint32(f.mu.shards)
}

// shards is how many shards the primary has, as far as is known.
func (f *Follower) shards() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.shards
}

// layout makes room for a primary with n shards: a new data set beside the old one, which readers go on to see, and
// links for its shards. It runs on the goroutine of link 0, r, before anything of its session was accepted. It reports
// whether the new shard 0 has something of its own to go on with.
func (f *Follower) layout(r *runner, n int) (resumable bool, err error) {
	f.mu.Lock()
	others := f.mu.runners[1:]
	f.mu.Unlock()
	for _, o := range others {
		o.stop()
	}
	f.layoutMu.Lock()
	defer f.layoutMu.Unlock()
	shards := f.opts.Store.Shards()
	back := len(shards) == n // the primary has again what readers see
	if !back {
		if shards, err = f.opts.Store.NewDataset(n); err != nil {
			return false, err
		}
	}
	f.mu.Lock()
	f.mu.runners = f.mu.runners[:1:1]
	f.mu.shards = n
	f.mu.pending, f.mu.alarm = !back, nil
	fresh := f.mu.shown == 0
	f.mu.Unlock()
	r.setShard(shards[0])
	if fresh {
		// Nothing is replaced, so there is nothing to keep until the sync is complete.
		if err := f.switchTo(n); err != nil {
			return false, err
		}
	}
	f.start(f.runnersFor(shards, 1))
	return !shards[0].Position().IsZero() || !stagedSnapshot(f.opts.FS, shards[0].Dir()).IsZero(), nil
}

// trySwitch shows readers the new data set once every shard of it has its snapshot, and all of them stream: until then it is the old one.
// Links call it when that may have come true: after a snapshot, after a resume, and with each heartbeat.
func (f *Follower) trySwitch() error {
	f.mu.Lock()
	pending := f.mu.pending
	f.mu.Unlock()
	if !pending {
		return nil
	}
	f.layoutMu.Lock()
	defer f.layoutMu.Unlock()
	f.mu.Lock()
	pending = f.mu.pending && len(f.mu.runners) == f.mu.shards
	runners := append([]*runner(nil), f.mu.runners...)
	f.mu.Unlock()
	if !pending {
		return nil
	}
	data := false
	for _, r := range runners {
		at := r.shard().Position()
		if at.IsZero() || !r.streams() {
			return nil
		}
		data = data || at.Offset > 0
	}
	if !data && !f.opts.AcceptEmptyPrimary && hasData(f.opts.Store.Shards()) {
		// Shard by shard this is a primary like any other. All of it together is a lost data directory. The links go on:
		// the first mutation settles it.
		f.setAlarm(fmt.Errorf("%w: none of its %d shards holds anything; if that primary is right, start the replica with --accept-empty-primary", ErrEmptyPrimary, len(runners)))
		return nil
	}
	f.setAlarm(nil)
	return f.switchTo(len(runners))
}

// setAlarm changes what every shard's status tells, and logs an alarm that is new.
func (f *Follower) setAlarm(err error) {
	f.mu.Lock()
	before := f.mu.alarm
	f.mu.alarm = err
	f.mu.Unlock()
	if err != nil && before == nil {
		f.opts.Logger.Error("readers go on to see the old data", "error", err)
	}
}

func hasData(shards []Shard) bool {
	for _, s := range shards {
		if s.Position().Offset > 0 {
			return true
		}
	}
	return false
}

// switchTo needs layoutMu.
func (f *Follower) switchTo(n int) error {
	if err := f.opts.Store.Switch(); err != nil {
		return err
	}
	f.mu.Lock()
	f.mu.pending, f.mu.shown = false, n
	f.mu.Unlock()
	f.mixed.Store(false)
	f.opts.Logger.Info("switched to the data set for the primary's shard count", "shards", n)
	return nil
}

// WaitCaughtUp returns once every shard has applied everything that the primary had when the call was made. It takes one
// to two seconds: of the heartbeats that come once a second, the first one after the call may have been on its way
// already, so a shard's second one counts, or the first one of a session that began after the call. It returns ctx's
// error if that ends first, with what was missing.
func (f *Follower) WaitCaughtUp(ctx context.Context) error {
	since := f.now()
	counts := map[*runner]uint64{}
	for _, r := range f.runners() {
		counts[r] = r.figures().AllHeartbeats
	}
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		missing := f.behind(since, counts)
		if missing == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), missing)
		case <-f.ctx.Done():
			return ErrClosed
		}
	}
}

// behind says which shard has not caught up with what the primary had at since, or nil.
func (f *Follower) behind(since time.Duration, counts map[*runner]uint64) error {
	f.mu.Lock()
	runners, shards, pending := append([]*runner(nil), f.mu.runners...), f.mu.shards, f.mu.pending
	f.mu.Unlock()
	if pending {
		return errors.New("the data set for the primary's shard count is not complete yet")
	}
	if shards == 0 || len(runners) != shards {
		return errors.New("the primary has not been heard yet")
	}
	for _, r := range runners {
		g := r.figures()
		fresh := g.Heartbeats > 0 && (g.Began > since || g.AllHeartbeats >= counts[r]+2)
		if g.State != StateStreaming || !fresh || g.Applied < g.PrimaryOffset {
			return fmt.Errorf("shard %d is %s at offset %d, the primary at %d", r.id, g.State, g.Applied, g.PrimaryOffset)
		}
	}
	return nil
}

// runners is a copy that stays as it is.
func (f *Follower) runners() []*runner {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*runner(nil), f.mu.runners...)
}
