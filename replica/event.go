package replica

import (
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/wire"
)

// EventKind says what happened to a link. Beside each kind stand the fields of [Event] that it fills.
type EventKind uint8

// The events.
const (
	EventWake        EventKind = iota // Err: the link was started, or its wait is over; Err is why the shard cannot take frames
	EventDialed                       // Position, Lineage, Durable, Snapshot, Settles, Rewinds: connected; what the shard has at this instant
	EventDialFailed                   // Err
	EventWelcome                      // Welcome: RESUME, REWIND or FULLSYNC
	EventRefused                      // Refusal
	EventLaidOut                      // Err, Resumable: the data set for the primary's shard count is there
	EventManifest                     // Manifest
	EventStaged                       // Err, Wants: the staging directory was compared with the manifest
	EventChunk                        // File, From, Size: a chunk arrived
	EventSnapshotEnd                  // Snapshot
	EventVerified                     // Err, Wants: the staged files were checked; Wants are the damaged ones
	EventInstalled                    // Err: the shard loaded the snapshot, or did not
	EventListed                       // Err: the primary was asked for what the surplus touched
	EventValues                       // values that passed their checks arrived
	EventValuesEnd                    // Position
	EventRewound                      // Err: the shard has undone its surplus, or has not
	EventFrame                        // First, Next, Size, CRC: a whole frame that passed its checks arrived
	EventHeartbeat                    // Heartbeat
	EventAsk                          // Next: the primary wants to know as soon as everything before it is applied
	EventApplied                      // Applied, Durable: the applier has got so far
	EventAckDue                       // what ActionAckSoon asked for
	EventTick                         // Heard, Paused, Lost, Durable: time passed
	EventBye                          // Refusal
	EventFailed                       // Err: reading, writing, parsing or applying failed; the session must end
	EventEnded                        // Err: the session's connection is closed and everything it started has ended
	EventStop                         // Err: the link is to end; nil: the node is closing
)

var eventNames = [...]string{
	"wake", "dialed", "dial-failed", "welcome", "refused", "laid-out", "manifest", "staged", "chunk", "snapshot-end",
	"verified", "installed", "listed", "values", "values-end", "rewound", "frame", "heartbeat", "ask", "applied", "ack-due", "tick", "bye", "failed", "ended", "stop",
}

// String gives the event's name in the transcripts.
func (k EventKind) String() string { return eventNames[k] }

// Event is one thing that happened. At is the time since some fixed instant, on a monotonic clock.
type Event struct {
	Kind      EventKind
	At        time.Duration
	Err       error
	Position  wire.Position
	Lineage   wire.Lineage
	Snapshot  wire.ID
	Welcome   *wire.Welcome
	Refusal   *wire.Refusal
	Manifest  *wire.Manifest
	Heartbeat *wire.Heartbeat
	Wants     []wire.Want
	Resumable bool // the shard that was laid out has something of its own to go on with
	Settles   wire.Position
	Rewinds   bool // the shard can undo a surplus

	First, Next uint64
	Size        int
	CRC         uint32
	File        uint32
	From        uint64
	Applied     uint64
	Durable     uint64
	Heard       time.Duration // when the last bytes arrived
	Paused      bool          // the session is not reading: its inbox is full, or it is busy with files
	Lost        time.Duration // for how long since the last tick this process did not run, or the machine did not
}

// ActionKind says what the session is to do. Beside each kind stand the fields of [Action] that it uses.
type ActionKind uint8

// The actions. Those down to ActionRewind are carried out in order by the link's own goroutine, and the event that
// answers them follows; the others do not block.
const (
	ActionDial      ActionKind = iota // then EventDialed or EventDialFailed
	ActionWait                        // Wait; then EventWake
	ActionQuit                        // the link is over
	ActionLayout                      // Shards: make room for that many shards; then EventLaidOut
	ActionPlace                       // Welcome: the primary's place in its chain is known
	ActionAdopt                       // Lineage: take over the primary's
	ActionStage                       // Welcome, Manifest: compare the staging directory; then EventStaged
	ActionStore                       // the chunk at hand goes to its file
	ActionVerify                      // then EventVerified
	ActionDiscard                     // the staging directory is of no use
	ActionSurplus                     // From: save the mutations from there on, which the primary does not have
	ActionInstall                     // Position, Lineage: load what was staged; then EventInstalled
	ActionList                        // From: ask for what the mutations from there on touched; then EventListed
	ActionKeep                        // the values at hand go to their file
	ActionRewind                      // Position, Settles, Lineage: undo the surplus by what was kept; then EventRewound
	ActionHello                       // Position, Lineage, Snapshot, Settles, Rewinds
	ActionFetch                       // Wants; none says that everything is there
	ActionApply                       // the frame at hand goes to the inbox
	ActionAck                         // Ack
	ActionAckSoon                     // Wait; then EventAckDue
	ActionKeepalive                   //
	ActionClose                       // Code, Text, Drop: end the session; with a code, say BYE; Drop: apply nothing more of the inbox
	ActionLog                         // Level, Text, Args
)

// Action is one thing to do.
type Action struct {
	Kind     ActionKind
	Wait     time.Duration
	Shards   uint32
	Position wire.Position
	Lineage  wire.Lineage
	Snapshot wire.ID
	Welcome  *wire.Welcome
	Manifest *wire.Manifest
	Wants    []wire.Want
	From     uint64
	Settles  wire.Position
	Rewinds  bool
	Ack      wire.Ack
	Code     wire.Code
	Text     string
	Level    hclog.Level
	Args     []any
	Drop     bool
}

// State is where a link is.
type State uint8

// The states.
const (
	StateIdle       State = iota
	StateConnecting       // dialling
	StateHandshake        // HELLO is sent, or about to be
	StateSyncing          // a full sync: files come in
	StateLoading          // a full sync: files are checked, and the shard switches to them
	StateRewinding        // a rejoin by difference: the surplus is being undone
	StateStreaming        // frames come in
	StateClosing          // the session is being ended
	StateBackoff          // waiting for the next attempt
	StateStopped          // the same, and somebody has to look at it: see the last error
)

// String gives the word that status figures use.
func (s State) String() string {
	switch s {
	case StateHandshake:
		return "handshake"
	case StateSyncing, StateLoading:
		return "syncing"
	case StateRewinding:
		return "rewinding"
	case StateStreaming:
		return "streaming"
	case StateClosing, StateBackoff:
		return "backoff"
	case StateStopped:
		return "stopped"
	}
	return "connecting"
}
