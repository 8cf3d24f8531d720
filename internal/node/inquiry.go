package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/understudy-kv/understudy/internal/store"
	"github.com/understudy-kv/understudy/wire"
)

const (
	takeoverTry  = 2 * time.Second // for one question to the target
	takeoverWait = 200 * time.Millisecond
)

// errUnasked means that the time for a handover was up before the target can have been asked.
var errUnasked = errors.New("the question could not be sent to the target in time")

// inquiry is the conversation with the target of a handover. It belongs to one goroutine.
type inquiry struct {
	node   *Node
	target string
	// conn is where the target has just said that it is ready; nil: the next question dials.
	conn net.Conn
	// sent is set once the target may get to know of a request: all bytes of one were taken by a connection.
	sent bool
	// limit is when a request that cannot be sent is given up; zero: never.
	limit time.Time
}

// close ends the connection to a target that was not asked.
func (q *inquiry) close() {
	if q.conn != nil {
		q.conn.Close()
	}
}

// probe asks whether the target would take over. ready is true where it would, and then the request can follow on the same
// connection; otherwise the text says why not. No answer is an error. ctx has a deadline.
func (q *inquiry) probe(ctx context.Context, t wire.Takeover) (ready bool, text string, err error) {
	t.Probe = true
	conn, err := q.node.opts.Dial(ctx, q.target)
	if err != nil {
		return false, "", err
	}
	f, _, err := converse(ctx, conn, wire.AppendTakeover(nil, t))
	var r wire.TakeoverReply
	if err == nil {
		r, err = parseAnswer(f, t.ID)
	}
	switch {
	case err != nil:
		conn.Close()
		return false, "", err
	case r.Outcome == wire.OutcomeReady:
		q.conn = conn
		return true, "", nil
	}
	conn.Close()
	// Whoever has gone on without this node will say so again when asked in earnest.
	return r.Outcome == wire.OutcomeDone, string(r.Outcome) + ": " + r.Text, nil
}

// untilAnswered asks again and again: the request carries an id, so asking twice is asking once.
func (q *inquiry) untilAnswered(ctx context.Context, t wire.Takeover) (wire.TakeoverReply, error) {
	for {
		once, cancel := context.WithTimeout(ctx, takeoverTry)
		reply, err := q.ask(once, t)
		cancel()
		if err == nil {
			return reply, nil
		}
		if !q.sent && !q.limit.IsZero() && time.Now().After(q.limit) {
			return reply, fmt.Errorf("%w: %w", errUnasked, err)
		}
		q.node.opts.Logger.Warn("no answer about the handover", "target", q.target, "error", err, "retry_in", takeoverWait)
		select {
		case <-time.After(takeoverWait):
		case <-q.node.quit:
			return reply, ErrClosed
		case <-ctx.Done():
			return reply, context.Cause(ctx)
		}
	}
}

// ask asks once; ctx has a deadline. No answer is an error.
func (q *inquiry) ask(ctx context.Context, t wire.Takeover) (wire.TakeoverReply, error) {
	conn := q.conn
	q.conn = nil
	if conn == nil {
		var err error
		if conn, err = q.node.opts.Dial(ctx, q.target); err != nil {
			return wire.TakeoverReply{}, err // nothing was sent
		}
	}
	defer conn.Close()
	f, sent, err := converse(ctx, conn, wire.AppendTakeover(nil, t))
	q.sent = q.sent || sent
	if err != nil {
		return wire.TakeoverReply{}, err
	}
	return parseAnswer(f, t.ID)
}

// parseAnswer reads the answer about a handover; a refusal of the connection as a whole counts as one of the handover.
func parseAnswer(f wire.Frame, id wire.ID) (wire.TakeoverReply, error) {
	switch f.Kind {
	case wire.KindTakeoverReply:
		reply, err := wire.ParseTakeoverReply(f.Payload)
		if err == nil && reply.ID != id {
			err = fmt.Errorf("an answer about the handover %s, asked was about %s", reply.ID, id)
		}
		return reply, err
	case wire.KindRefuse:
		r, err := wire.ParseRefusal(f.Kind, f.Payload)
		return wire.TakeoverReply{ID: id, Outcome: wire.OutcomeRefused, Text: string(r.Code) + ": " + r.Text}, err
	}
	return wire.TakeoverReply{}, fmt.Errorf("answered by a %s frame", f.Kind)
}

// takeover is the request of a handover.
func (n *Node) takeover(h store.Handover) wire.Takeover {
	return wire.Takeover{
		ID: h.ID, Positions: h.Positions, Node: n.ID(), Cluster: n.opts.Cluster, User: n.opts.User, Password: n.opts.Password,
		Announce: n.opts.Announce, AnnounceBase: n.ReplicationAddr(),
	}
}
