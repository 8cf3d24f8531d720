package replica

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/wire"
)

// The ways in which a link ends a session by itself, or a shard's own trouble ends it. All are wrapped with the values
// at fault; test with errors.Is.
var (
	ErrClosed       = errors.New("replica is closed")
	ErrSilent       = errors.New("the primary is silent")
	ErrStuck        = errors.New("a write to the primary is stuck")
	ErrGap          = errors.New("frames are missing from the stream")
	ErrRepeat       = errors.New("frames are repeated in the stream")
	ErrProtocol     = errors.New("the primary broke the protocol")
	ErrDigest       = errors.New("the stream's digest differs from the primary's")
	ErrShard        = errors.New("the shard cannot take frames")
	ErrStaging      = errors.New("the snapshot cannot be stored")
	ErrDamaged      = errors.New("a snapshot file arrived damaged again and again")
	ErrLoad         = errors.New("the snapshot cannot be loaded")
	ErrEmptyPrimary = errors.New("the primary is empty and knows nothing of this replica's data")
	ErrRewind       = errors.New("the surplus cannot be undone now")
	ErrCannotUndo   = errors.New("the surplus cannot be undone key by key")
	ErrLayout       = errors.New("the primary has another number of shards")

	// ErrClientPort means that a server for clients answered in place of the primary.
	ErrClientPort = errors.New("that is a port for clients, not for replicas")

	// ErrLoop means that the primary gets its data from this node.
	ErrLoop = errors.New("the primary gets its data from this node")

	// errLeaving ends a link whose inbox is to be applied.
	errLeaving = errors.New("this node ceases to follow")
	errLaidOut = errors.New("the data set for the primary's shard count was begun before and goes on")
	errMoved   = errors.New("this node serves its replicas elsewhere now, which the primary is told in a HELLO")
	errRewound = errors.New("this replica has undone its surplus and goes on from the fork")
)

// RefusedError is the primary's REFUSE.
type RefusedError struct{ wire.Refusal }

func (e *RefusedError) Error() string { return fmt.Sprintf("refused: %s: %s", e.Code, e.Text) }

// ByeError is the primary's BYE: the reason with which it ended a running session.
type ByeError struct{ wire.Refusal }

func (e *ByeError) Error() string {
	return fmt.Sprintf("the primary ended the session: %s: %s", e.Code, e.Text)
}

// retry is how long a link waits before the next attempt.
type retry uint8

const (
	retryFast    retry = iota // Backoff.Min doubling up to Max; from the start again after progress
	retryEasy                 // Backoff.Min growing slowly up to Max: an attempt costs nobody anything
	retryPatient              // the same from Backoff.Patient on: an attempt costs the primary something, or cannot help at once
	retrySlow                 // Backoff.Slow: somebody has to change something first
	retryNever                // the node is closing
)

// A rule says what follows from one way in which a session ends or fails to start.
type rule struct {
	err   error     // matched with errors.Is; nil in the rules for codes
	code  wire.Code // matched with the code of a REFUSE or BYE; empty in the rules for errors
	retry retry
	level hclog.Level // of the log line
	bye   wire.Code   // what the primary is told; empty when it is gone, or said it first
	alarm bool        // somebody has to look at it, though the link goes on trying
	drop  bool        // what is left in the inbox is not to be trusted, or cannot be applied
}

// rules is the one place where errors become actions. The first match holds.
var rules = []rule{
	{err: ErrClosed, retry: retryNever, level: hclog.Debug, bye: wire.CodeShutdown, drop: true},
	{err: errLeaving, retry: retryNever, level: hclog.Debug, bye: wire.CodeShutdown},

	// What the shard cannot do. It keeps what it has, and never acks what it did not apply (pitfalls 19, 21, 26).
	{err: ErrShard, retry: retryPatient, level: hclog.Error, bye: wire.CodeFailed, alarm: true, drop: true},
	{err: ErrStaging, retry: retryPatient, level: hclog.Error, bye: wire.CodeFailed},
	{err: ErrLoad, retry: retrySlow, level: hclog.Error, bye: wire.CodeFailed},
	{err: ErrEmptyPrimary, retry: retrySlow, level: hclog.Error, bye: wire.CodeFailed},
	{err: ErrRewind, retry: retryPatient, level: hclog.Error, bye: wire.CodeFailed},
	{err: ErrCannotUndo, retry: retryFast, level: hclog.Warn, bye: wire.CodeShutdown}, // a full sync will do it
	{err: errRewound, retry: retryFast, level: hclog.Info, bye: wire.CodeShutdown},
	{err: ErrDamaged, retry: retrySlow, level: hclog.Error, bye: wire.CodeCorrupt},
	{err: ErrLayout, retry: retryPatient, level: hclog.Info, bye: wire.CodeShutdown},
	{err: errMoved, retry: retryFast, level: hclog.Info, bye: wire.CodeShutdown},
	{err: errLaidOut, retry: retryFast, level: hclog.Info, bye: wire.CodeShutdown},

	{err: ErrClientPort, retry: retrySlow, level: hclog.Error},
	{err: ErrLoop, retry: retryPatient, level: hclog.Error, bye: wire.CodeLoop, alarm: true},

	// What the primary sent.
	{err: ErrDigest, retry: retryFast, level: hclog.Error, bye: wire.CodeCorrupt, drop: true},
	{err: ErrGap, retry: retryPatient, level: hclog.Error, bye: wire.CodeProtocol},
	{err: ErrRepeat, retry: retryPatient, level: hclog.Error, bye: wire.CodeProtocol},
	{err: ErrProtocol, retry: retryPatient, level: hclog.Error, bye: wire.CodeProtocol},
	{err: wire.ErrMagic, retry: retryFast, level: hclog.Error, bye: wire.CodeCorrupt},
	{err: wire.ErrHeaderCRC, retry: retryFast, level: hclog.Warn, bye: wire.CodeCorrupt},
	{err: wire.ErrCRC, retry: retryFast, level: hclog.Warn, bye: wire.CodeCorrupt},
	{err: wire.ErrUnknown, retry: retryPatient, level: hclog.Error, bye: wire.CodeProtocol},
	{err: wire.ErrMalformed, retry: retryPatient, level: hclog.Error, bye: wire.CodeProtocol},
	{err: wire.ErrTooLarge, retry: retryPatient, level: hclog.Error, bye: wire.CodeProtocol},

	// What became of the link.
	{err: ErrSilent, retry: retryFast, level: hclog.Warn, bye: wire.CodeTimeout},
	{err: ErrStuck, retry: retryFast, level: hclog.Warn},
	{err: syscall.ECONNREFUSED, retry: retryEasy, level: hclog.Warn},
	{err: syscall.EHOSTUNREACH, retry: retryEasy, level: hclog.Warn},
	{err: syscall.ENETUNREACH, retry: retryEasy, level: hclog.Warn},

	// What the primary said.
	{code: wire.CodeVersion, retry: retrySlow, level: hclog.Error},
	{code: wire.CodeAuth, retry: retrySlow, level: hclog.Error},
	{code: wire.CodeCluster, retry: retrySlow, level: hclog.Error},
	{code: wire.CodeLoop, retry: retryPatient, level: hclog.Error, alarm: true}, // a promotion elsewhere ends it
	{code: wire.CodeShard, retry: retryPatient, level: hclog.Error},
	{code: wire.CodeSlotTaken, retry: retryPatient, level: hclog.Warn},
	{code: wire.CodeBusy, retry: retryPatient, level: hclog.Warn},
	{code: wire.CodeLoading, retry: retryPatient, level: hclog.Info},
	{code: wire.CodeBehind, retry: retryPatient, level: hclog.Info},
	{code: wire.CodeRole, retry: retryFast, level: hclog.Info},
	{code: wire.CodeShutdown, retry: retryFast, level: hclog.Info},
	{code: wire.CodeReplaced, retry: retryFast, level: hclog.Info},
	{code: wire.CodeTimeout, retry: retryFast, level: hclog.Warn},
	{code: wire.CodeCorrupt, retry: retryFast, level: hclog.Warn},
	{code: wire.CodeEvicted, retry: retryPatient, level: hclog.Warn},
	{code: wire.CodeDropped, retry: retryPatient, level: hclog.Warn},
	{code: wire.CodeProtocol, retry: retryPatient, level: hclog.Error},
	{code: wire.CodeFailed, retry: retryPatient, level: hclog.Error},
}

// otherwise is for what no rule names: dial errors, resets, a connection that ended without a word.
var otherwise = rule{retry: retryFast, level: hclog.Warn}

// classify finds the rule for an error.
func classify(err error) rule {
	var code wire.Code
	var refused *RefusedError
	var bye *ByeError
	switch {
	case errors.As(err, &refused):
		code = refused.Code
		if code == "" {
			code = wire.CodeProtocol
		}
	case errors.As(err, &bye):
		code = bye.Code
	}
	for _, r := range rules {
		if r.err != nil && errors.Is(err, r.err) || r.code != "" && r.code == code {
			return r
		}
	}
	return otherwise
}
