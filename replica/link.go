package replica

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/wire"
)

// LinkOptions configure a [Link].
type LinkOptions struct {
	Shard  uint32 // of the connection
	Shards uint32 // the replica's shard count, 0 while it has none
	// Learns lets the link take over the primary's shard count; one link of a node does, the others wait for it.
	Learns             bool
	Format             uint32        // newest storage format that the state machine loads, 0 for any
	AcceptEmptyPrimary bool          // let an empty primary replace this replica's data
	Silence            time.Duration // default 9 s
	AckEvery           time.Duration // how old the last ack is before a frame that is applied is acked at once; none waits longer than twice that. Default 25 ms
	Backoff            Backoff
	Jitter             func() float64 // in [0, 1). Required
	Node               wire.ID        // this node's, against loops; may be zero
}

const (
	keepaliveEvery = time.Second // also the longest time without an ack
	answerExtra    = time.Second // that an answer to HELLO may take beyond LinkOptions.Silence
	maxRefetches   = 3           // of one damaged file, in one session
	repeatLog      = time.Minute // the same failure is logged once in this time
)

// Link decides everything about one shard's link: when to dial, what to answer, what to accept, when to ack, when to
// end a session and how long to wait after it. It does no IO and asks no clock: [Link.Step] takes an event, with the
// time, and returns what is to be done. It is not safe for concurrent use.
//
// Invariants, checked by check:
//
//  1. While streaming, durable <= applied <= received <= the primary's offset, as far as heard. None falls in a session.
//  2. Acks are sent while streaming only, and tell what was applied, not what is queued (pitfall 21).
//  3. A frame is accepted only where the stream is: its first offset equals received.
//  4. An event that arrives while a session is being ended changes nothing but figures.
type Link struct {
	opts LinkOptions
	now  time.Duration
	acts []Action

	state     State
	cause     error // why the session is being ended
	failures  int   // in a row, but for those of unheard
	unheard   int   // in a row: nobody answered at the address
	progress  bool  // the session brought something
	answered  bool  // the primary has answered HELLO
	began     time.Duration
	keptAlive time.Duration
	heard     time.Duration // Event.Heard of the last tick behind the answer to HELLO
	// quietSince is since when nothing was heard, moved on by what Event.Lost tells. At most now.
	quietSince time.Duration
	position   wire.Position // what HELLO said
	lineage    wire.Lineage  // the same
	welcome    *wire.Welcome
	sync       syncState
	rewinding  rewindState
	settles    wire.Position // what HELLO said: the shard's data is whole from there on; zero if it is
	offered    bool          // the same: the shard can undo a surplus
	rewound    bool          // the last session ended with a rewind
	cannot     bool          // its surplus cannot be undone, so the next HELLO does not offer it

	received, applied, durable uint64
	digest                     wire.Digest
	acked                      wire.Ack
	ackedAt                    time.Duration
	ackSoon                    bool   // an EventAckDue will come
	asked                      uint64 // the primary waits for the ack of this

	figures    Figures
	lastLog    string
	lastLogAt  time.Duration
	everLogged bool
}

// Figures are a link's counters since it was made, and what it has heard. Times are on the clock of [Event.At], sizes in
// bytes, offsets name the next mutation.
type Figures struct {
	State                      State
	Received, Applied, Durable uint64
	PrimaryOffset              uint64        // as far as heard, 0 before the first answer
	Pending                    uint64        // bytes that the primary had not sent yet, at the last heartbeat
	PrimaryClock               int64         // microseconds since 1970, as the last heartbeat told
	ClockAt                    time.Duration // when that was
	Heard                      time.Duration // last heartbeat or frame
	Began                      time.Duration // the last session: when HELLO was sent
	Heartbeats                 uint64        // of the running session
	AllHeartbeats              uint64        // of all sessions' streams
	Since                      time.Duration // when the link began or ceased to stream
	CaughtUpAt                 time.Duration // when it last knew that it had everything
	EverCaughtUp               bool
	Owes                       bool // a full sync or a rewind was begun, by this link, and neither was completed since
	LastResync                 string
	LastRefusal                string
	LastError                  error
	Alarm                      error // the last error, when it is one that somebody has to look at; nil again once streaming
	FullSyncs                  map[wire.Reason]uint64
	Resumes, Rewinds           uint64
	Refusals                   map[wire.Code]uint64
	DigestMismatches           uint64
	Frames, Mutations, Bytes   uint64
	SnapshotBytes              uint64
	Sync                       *Progress // while a full sync runs
}

// NewLink makes a link that has not been started.
func NewLink(o LinkOptions) *Link {
	if o.Silence <= 0 {
		o.Silence = 9 * time.Second
	}
	if o.AckEvery <= 0 {
		o.AckEvery = 25 * time.Millisecond
	}
	o.Backoff.ensureDefaults()
	return &Link{opts: o, figures: Figures{FullSyncs: map[wire.Reason]uint64{}, Refusals: map[wire.Code]uint64{}}}
}

// Figures returns a copy of the link's figures at the given time.
func (l *Link) Figures(now time.Duration) Figures {
	f := l.figures
	f.State, f.Received, f.Applied, f.Durable = l.state, l.received, l.applied, l.durable
	f.FullSyncs, f.Refusals = maps.Clone(f.FullSyncs), maps.Clone(f.Refusals)
	if l.state == StateSyncing || l.state == StateLoading {
		p := l.sync.progress(now)
		f.Sync = &p
	}
	return f
}

// Step takes one event and returns what to do, in order. The slice is valid until the next Step.
func (l *Link) Step(ev Event) []Action {
	l.now = ev.At
	l.acts = l.acts[:0]
	switch ev.Kind {
	case EventWake:
		l.wake(ev)
	case EventDialFailed:
		l.ended(fmt.Errorf("dial: %w", ev.Err))
	case EventEnded:
		if l.cause == nil {
			l.cause = ev.Err
		}
		l.ended(l.cause)
	case EventStop:
		l.stop(ev.Err)
	default:
		if l.state != StateClosing {
			l.inSession(ev)
		} else if ev.Kind == EventApplied {
			l.applied = max(l.applied, min(ev.Applied, l.received)) // what was left in the inbox
		}
	}
	return l.acts
}

func (l *Link) do(a Action) { l.acts = append(l.acts, a) }

func (l *Link) log(level hclog.Level, text string, args ...any) {
	l.do(Action{Kind: ActionLog, Level: level, Text: text, Args: args})
}

func (l *Link) wake(ev Event) {
	if ev.Err != nil {
		// Frames that cannot be applied are not asked for.
		l.ended(fmt.Errorf("%w: %w", ErrShard, ev.Err))
		return
	}
	l.state, l.cause, l.progress, l.answered, l.welcome = StateConnecting, nil, false, false, nil
	l.do(Action{Kind: ActionDial})
}

func (l *Link) stop(why error) {
	if why == nil {
		why = ErrClosed
	}
	if l.live() {
		l.fail(why)
		return
	}
	if l.state == StateClosing {
		l.cause = why
		return
	}
	l.do(Action{Kind: ActionQuit})
}

// live reports whether a session is open.
func (l *Link) live() bool {
	return l.state == StateHandshake || l.state == StateSyncing || l.state == StateLoading || l.state == StateRewinding || l.state == StateStreaming
}

// inSession handles what can only happen while a session is open.
func (l *Link) inSession(ev Event) {
	switch ev.Kind {
	case EventDialed:
		l.dialed(ev)
		return
	case EventFailed:
		l.fail(ev.Err)
		return
	case EventRefused:
		l.refused(ev.Refusal)
		return
	case EventBye:
		l.fail(&ByeError{*ev.Refusal})
		return
	case EventTick:
		l.tick(ev)
		return
	case EventAsk:
		l.ask(ev.Next)
		return
	case EventAckDue:
		l.ackDue()
		return
	}
	allowed := false
	switch l.state {
	case StateHandshake:
		allowed = ev.Kind == EventWelcome && !l.answered || ev.Kind == EventLaidOut && l.answered
	case StateSyncing, StateLoading:
		allowed = l.sync.allows(ev.Kind)
	case StateRewinding:
		allowed = l.rewinding.allows(ev.Kind)
	case StateStreaming:
		allowed = ev.Kind == EventFrame || ev.Kind == EventHeartbeat || ev.Kind == EventApplied
	}
	if !allowed {
		l.fail(fmt.Errorf("%w: a %s arrived in state %s", ErrProtocol, ev.Kind, l.state))
		return
	}
	switch {
	case l.state == StateSyncing || l.state == StateLoading:
		l.stepSync(ev)
	case l.state == StateRewinding:
		l.stepRewind(ev)
	case ev.Kind == EventWelcome:
		l.welcomed(ev.Welcome)
	case ev.Kind == EventLaidOut:
		l.laidOut(ev)
	case ev.Kind == EventFrame:
		l.frame(ev)
	case ev.Kind == EventHeartbeat:
		l.heartbeat(ev.Heartbeat)
	case ev.Kind == EventApplied:
		l.wasApplied(ev)
	}
}

// fail begins the end of the session. EventEnded completes it.
func (l *Link) fail(err error) {
	if errors.Is(err, ErrDigest) {
		l.figures.DigestMismatches++
	}
	r := classify(err)
	l.cause = err
	l.setState(StateClosing)
	a := Action{Kind: ActionClose, Code: r.bye, Drop: r.drop}
	if r.bye != "" {
		a.Text = err.Error()
	}
	l.do(a)
}

// ended is after the session, or instead of one: it says what to do next.
func (l *Link) ended(err error) {
	r := classify(err)
	if r.retry == retryNever {
		l.setState(StateStopped)
		l.do(Action{Kind: ActionQuit})
		return
	}
	if !errors.Is(err, errRewound) {
		l.figures.LastError = err
	}
	l.setState(StateBackoff)
	if r.retry == retrySlow || r.alarm {
		l.setState(StateStopped)
		l.figures.Alarm = err
	}
	if l.progress {
		l.failures, l.everLogged = 0, false
	}
	l.progress = false
	failures := &l.failures
	if r.retry == retryEasy {
		failures = &l.unheard
	} else {
		l.unheard = 0
	}
	*failures++
	wait := l.opts.Backoff.wait(r.retry, *failures, l.opts.Jitter())
	level := r.level
	if l.everLogged && l.lastLog == err.Error() && l.now-l.lastLogAt < repeatLog {
		level = hclog.Debug
	} else {
		l.everLogged, l.lastLog, l.lastLogAt = true, err.Error(), l.now
	}
	l.log(level, "link is down", "error", err, "retry_in", wait)
	l.do(Action{Kind: ActionWait, Wait: wait})
}

func (l *Link) setState(s State) {
	if (l.state == StateStreaming) != (s == StateStreaming) {
		l.figures.Since = l.now
	}
	l.state = s
}

// check reports a broken invariant. Tests call it after every step.
func (l *Link) check() error {
	if l.state == StateStreaming && (l.durable > l.applied || l.applied > l.received || l.received > l.figures.PrimaryOffset) {
		return fmt.Errorf("durable %d, applied %d, received %d, primary's offset %d: each must be at most the next", l.durable, l.applied, l.received, l.figures.PrimaryOffset)
	}
	for _, a := range l.acts {
		if a.Kind == ActionAck && (l.state != StateStreaming || a.Ack.Applied > l.applied) {
			return fmt.Errorf("ack %+v in state %s with applied %d", a.Ack, l.state, l.applied)
		}
	}
	return nil
}
