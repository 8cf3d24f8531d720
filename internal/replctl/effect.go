package replctl

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/wire"
)

// effectKind is what an operation means to a client.
type effectKind uint8

const (
	effectSet    effectKind = iota // key has value, until deadline if that is not 0
	effectDelete                   // key is gone
	effectFlush                    // every key of the shard is gone
	effectIndex                    // the expiry index's own entry: it follows from the records
	effectRaw                      // nothing that a command of ours brings about
)

// effect is an operation in terms of the commands of a client. Its slices are valid as long as the frame's.
type effect struct {
	kind       effectKind
	offset     uint64
	commit     int64 // microseconds since 1970
	key, value []byte
	deadline   int64 // milliseconds since 1970, 0 for none
	op         wire.Op
}

// eachEffect calls f with the effect of each operation of the frame, in order.
func eachEffect(frame wire.Frame, f func(effect) error) error {
	for ops := frame.Ops(); ops.Next(); {
		op := ops.Op()
		if op.Kind == wire.OpEnd {
			continue
		}
		e := effectOf(op)
		e.offset, e.commit = frame.First+uint64(ops.Mutation()), frame.Commit
		if err := f(e); err != nil {
			return err
		}
	}
	return nil
}

func effectOf(op wire.Op) effect {
	e := effect{kind: effectRaw, op: op}
	if op.Kind == wire.OpDeleteRange {
		if from, to := engine.KeyspaceBounds(); string(op.Key) == string(from) && string(op.Value) == string(to) {
			e.kind = effectFlush
		}
		return e
	}
	k, err := engine.DecodeKey(op.Key)
	switch {
	case err != nil || k.Kind == engine.KeySystem:
	case k.Kind == engine.KeyIndex:
		e.kind, e.key = effectIndex, k.User
	case !k.IsRecord():
	case op.Kind == wire.OpDelete:
		e.kind, e.key = effectDelete, k.User
	default:
		r, err := engine.DecodeRecord(op.Value)
		if err == nil && r.Type == engine.TypeString {
			e.kind, e.key, e.value, e.deadline = effectSet, k.User, r.Value, r.Deadline
		}
	}
	return e
}

// command is the command that brings the effect about, nil if none does. From its deadline on, a key is gone: so it is
// with SET and a PXAT that has passed, but DEL says so.
func (e effect) command(now int64) []string {
	switch e.kind {
	case effectSet:
		if (engine.Record{Deadline: e.deadline}).Expired(now) {
			return []string{"DEL", string(e.key)}
		}
		if e.deadline != 0 {
			return []string{"SET", string(e.key), string(e.value), "PXAT", strconv.FormatInt(e.deadline, 10)}
		}
		return []string{"SET", string(e.key), string(e.value)}
	case effectDelete:
		return []string{"DEL", string(e.key)}
	case effectFlush:
		return []string{"FLUSHALL"}
	}
	return nil
}

// cutAt is how many bytes of an argument are printed, unless all are asked for.
const cutAt = 256

// printed is a command as a person types it to redis-cli. An argument that is cut cannot be typed by mistake: redis-cli
// refuses a closing quote with something behind it.
func printed(args []string, full bool) string {
	var s strings.Builder
	for i, a := range args {
		if i > 0 {
			s.WriteByte(' ')
		}
		switch {
		case i == 0 || plain(a):
			s.WriteString(a)
		case full || len(a) <= cutAt:
			s.WriteString(quoted(a))
		default:
			fmt.Fprintf(&s, "%s…(%d bytes, --full prints all)", quoted(a[:cutAt]), len(a))
		}
	}
	return s.String()
}

// plain reports whether an argument needs no quotes.
func plain(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_-.:/+@{}[]()*", c) >= 0) {
			return false
		}
	}
	return s != "" && len(s) <= cutAt
}

// quoted puts quotes around any bytes as redis-cli reads and writes them.
func quoted(s string) string {
	b := append(make([]byte, 0, len(s)+2), '"')
	for i := range len(s) {
		switch c := s[i]; c {
		case '\\', '"':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		case '\a':
			b = append(b, '\\', 'a')
		case '\b':
			b = append(b, '\\', 'b')
		default:
			if c < ' ' || c > '~' {
				b = fmt.Appendf(b, "\\x%02x", c)
			} else {
				b = append(b, c)
			}
		}
	}
	return string(append(b, '"'))
}
