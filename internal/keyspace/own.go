package keyspace

import (
	"bytes"

	"github.com/understudy-kv/understudy/internal/command"
	"github.com/understudy-kv/understudy/internal/resp"
)

// controls are the commands that are executed and not queued when a transaction is open.
var controls = map[string]bool{"multi": true, "exec": true, "discard": true, "watch": true, "quit": true, "reset": true}

// own executes a command that is not routed by key. Everything before it has been executed.
func (s *Session) own(c *command.Command, args [][]byte, w *resp.Writer, sink Sink) (end bool) {
	switch c.Name {
	case "multi":
		if s.multi.open {
			w.Error(errNestedMulti)
			return false
		}
		s.multi.begin()
		w.OK()
	case "discard":
		if !s.multi.open {
			w.Error(errDiscard)
			return false
		}
		s.multi.end()
		s.unwatch()
		w.OK()
	case "exec":
		return s.exec(w)
	case "watch":
		s.watchKeys(args[1:], w)
	case "unwatch":
		s.unwatch()
		w.OK()
	case "flushall", "flushdb":
		if flushArgs(args, w) {
			s.across(c, args, w)
		}
	default:
		switch whole := wholes[c.Name]; {
		case whole != nil:
			p := &spread{s: s, args: args, w: w}
			if w == sink.Writer() {
				p.sink = sink
			}
			whole(p)
			return p.broken
		case c.Run != nil:
			c.Run(&command.Ctx{Args: args, Out: w})
		case s.hook != nil:
			return s.hook.Command(c, args, w)
		default:
			w.Error(errNoHook)
		}
	}
	return false
}

// across executes one command that concerns several shards as one.
func (s *Session) across(c *command.Command, args [][]byte, w *resp.Writer) {
	need := make([]bool, len(s.on.shards))
	s.addShards(need, c, args)
	t := &transaction{s: s, steps: []step{{c, args}}, w: w, begun: len(w.Buf), single: true, writes: c.Flags&command.Write != 0}
	t.onSeveral(idsOf(need))
}

// flushArgs checks FLUSHALL [ASYNC | SYNC]. Either way the keys are gone when the reply comes, and their bytes are
// deleted in the background.
func flushArgs(args [][]byte, w *resp.Writer) bool {
	if len(args) == 1 || len(args) == 2 && (fold(args[1], "async") || fold(args[1], "sync")) {
		return true
	}
	w.Error(errSyntax)
	return false
}

// fold reports whether b is the word, whatever the case of its letters.
func fold(b []byte, word string) bool { return bytes.EqualFold(b, []byte(word)) }
