package primary

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/slottable"
	"github.com/understudy-kv/understudy/wire"
)

// Causes with which a session ends, beside those of the log, the link and the slots.
var (
	errShutdown = errors.New("the primary is shutting down")
	errReplaced = errors.New("the same replica process opened a newer session")
	errProtocol = errors.New("the replica broke the protocol")
	errSnapshot = errors.New("the snapshot cannot be served")
	errLostSync = errors.New("the log lost the snapshot's position before the full sync was over")
	errBusy     = errors.New("the snapshot is not ready yet")
	errLeft     = errors.New("the replica ended the session")
	errRole     = errors.New("this node's role, history or place in its chain is another one now")
)

func protocol(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errProtocol}, args...)...)
}

// end is what one way of ending a session means.
type end struct {
	err   error
	code  wire.Code // of the BYE; empty when the peer would not hear it
	level hclog.Level
}

// ends is the one table of errors; the first that matches holds.
var ends = []end{
	{errShutdown, wire.CodeShutdown, hclog.Info},
	{errReplaced, wire.CodeReplaced, hclog.Info},
	{errRole, wire.CodeRole, hclog.Info},
	{errBusy, wire.CodeBusy, hclog.Warn},
	{errLeft, "", hclog.Info},
	{errSilent, wire.CodeTimeout, hclog.Warn},
	{errStuck, "", hclog.Warn},
	{errLostSync, wire.CodeEvicted, hclog.Error},
	{backlog.ErrEvicted, wire.CodeEvicted, hclog.Warn},
	{backlog.ErrClosed, wire.CodeShutdown, hclog.Info},
	{slottable.ErrSession, wire.CodeReplaced, hclog.Info},
	{errSnapshot, wire.CodeFailed, hclog.Error},
	{errProtocol, wire.CodeProtocol, hclog.Error},
	{wire.ErrCRC, wire.CodeCorrupt, hclog.Warn},
	{wire.ErrHeaderCRC, wire.CodeCorrupt, hclog.Warn},
	{wire.ErrMagic, wire.CodeProtocol, hclog.Error},
	{wire.ErrUnknown, wire.CodeProtocol, hclog.Error},
	{wire.ErrTooLarge, wire.CodeProtocol, hclog.Error},
	{wire.ErrMalformed, wire.CodeProtocol, hclog.Error},
	{io.EOF, "", hclog.Info},
	{net.ErrClosed, "", hclog.Info},
	{io.ErrClosedPipe, "", hclog.Info},
	{context.Canceled, wire.CodeShutdown, hclog.Info},
}

// classify says what a session's end means to the peer and to the log.
func classify(err error) end {
	var ack *slottable.AckError
	if errors.As(err, &ack) {
		return end{err, wire.CodeProtocol, hclog.Error}
	}
	var corrupt *backlog.CorruptError
	if errors.As(err, &corrupt) {
		return end{err, wire.CodeFailed, hclog.Error}
	}
	var network net.Error
	for _, e := range ends {
		if errors.Is(err, e.err) {
			return e
		}
	}
	if errors.As(err, &network) {
		return end{err, "", hclog.Info}
	}
	return end{err, wire.CodeFailed, hclog.Error}
}

// verdictOf turns a refused attachment into a refusal.
func verdictOf(err error) Verdict {
	var taken *slottable.TakenError
	if errors.As(err, &taken) {
		return refuse(wire.CodeSlotTaken, "replica %s on shard %d is held by another process at %s; stop that process, or give this one its own data directory or --replica-id",
			taken.Replica, taken.Shard, taken.Holder)
	}
	return refuse(wire.CodeBusy, "%v", err)
}
