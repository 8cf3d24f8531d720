package replctl

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/wire"
)

// framePrinter writes frames for people, or as one JSON object a line.
type framePrinter struct {
	w     io.Writer
	shard int
	file  string
	json  bool
	buf   []byte
}

// shownValue is how much of a value a person is shown, in bytes. JSON has all of it.
const shownValue = 48

// opText is an operation in terms of the keyspace. For a state machine of somebody else's, and for entries that the
// layout does not know, Op and the raw bytes are all there is.
type opText struct {
	Op       string `json:"op"`              // put, delete, delete-range, expiry-put, expiry-delete
	Key      string `json:"key,omitempty"`   // the user's key; for a range its beginning
	Until    string `json:"until,omitempty"` // delete-range: its end
	Type     string `json:"type,omitempty"`
	Deadline string `json:"deadline,omitempty"` // RFC 3339
	Value    string `json:"value,omitempty"`
	Hex      bool   `json:"hex,omitempty"` // Key, Until and Value are in hex, since they are not all text
	size     int
}

type frameText struct {
	Shard     int        `json:"shard"`
	File      string     `json:"file"`
	Byte      int64      `json:"byte"`
	First     uint64     `json:"first"`
	Next      uint64     `json:"next"`
	Commit    string     `json:"commit"`
	Bytes     int        `json:"bytes"`
	CRC       string     `json:"crc32c"`
	Mutations [][]opText `json:"mutations"`
}

func (p *framePrinter) header(s backlog.SegmentInfo) {
	if !p.json {
		fmt.Fprintf(p.w, "shard %d: segment %s from offset %d to %d, generation %s, %d bytes\n", p.shard, p.file, s.Header.First, s.Next, s.Header.Generation, s.Size)
	}
}

func (p *framePrinter) frame(f wire.Frame, at int64) error {
	t := frameText{
		Shard: p.shard, File: p.file, Byte: at, First: f.First, Next: f.Next(), Bytes: f.Size(), CRC: fmt.Sprintf("%08x", f.CRC()),
		Commit: time.UnixMicro(f.Commit).UTC().Format("2006-01-02T15:04:05.000000Z"), Mutations: make([][]opText, f.Count),
	}
	for ops := f.Ops(); ops.Next(); {
		if op := ops.Op(); op.Kind != wire.OpEnd {
			t.Mutations[ops.Mutation()] = append(t.Mutations[ops.Mutation()], describe(op))
		}
	}
	if p.json {
		return json.NewEncoder(p.w).Encode(t)
	}
	fmt.Fprintf(p.w, "  byte %d: offsets [%d, %d), committed %s, %d bytes, crc %s\n", at, t.First, t.Next, t.Commit, t.Bytes, t.CRC)
	for i, ops := range t.Mutations {
		for _, op := range ops {
			fmt.Fprintf(p.w, "    %d  %s\n", t.First+uint64(i), op)
		}
	}
	return nil
}

// describe puts an operation into the words of the keyspace.
func describe(op wire.Op) opText {
	t := opText{Op: op.Kind.String()}
	key, err := engine.DecodeKey(op.Key)
	switch {
	case op.Kind == wire.OpDeleteRange:
		from, to := engine.KeyspaceBounds()
		if string(op.Key) == string(from) && string(op.Value) == string(to) {
			return opText{Op: "delete-everything"}
		}
		return t.with(op.Key, op.Value, nil)
	case err != nil || key.Kind == engine.KeySystem || key.Kind == engine.KeyData && !key.IsRecord():
		t.size = len(op.Value)
		return t.with(op.Key, nil, op.Value)
	case key.Kind == engine.KeyIndex:
		t.Op, t.Deadline = "expiry-"+t.Op, deadline(key.Deadline)
		return t.with(key.User, nil, nil)
	case op.Kind == wire.OpPut:
		r, err := engine.DecodeRecord(op.Value)
		if err != nil {
			t.Type = "damaged"
			t.size = len(op.Value)
			return t.with(key.User, nil, op.Value)
		}
		t.Type, t.size = r.Type.String(), len(r.Value)
		if r.Deadline != 0 {
			t.Deadline = deadline(r.Deadline)
		}
		return t.with(key.User, nil, r.Value)
	}
	return t.with(key.User, nil, nil)
}

func deadline(millis int64) string {
	return time.UnixMilli(millis).UTC().Format("2006-01-02T15:04:05.000Z")
}

// with sets the texts, in hex if one of them is no text: JSON cannot carry other bytes.
func (t opText) with(key, until, value []byte) opText {
	encode := func(b []byte) string { return string(b) }
	if t.Hex = !utf8.Valid(key) || !utf8.Valid(until) || !utf8.Valid(value); t.Hex {
		encode = hex.EncodeToString
	}
	t.Key, t.Until, t.Value = encode(key), encode(until), encode(value)
	return t
}

func (t opText) String() string {
	quote := strconv.Quote
	limit := shownValue
	if t.Hex {
		quote = func(s string) string { return "0x" + s }
		limit *= 2
	}
	s := t.Op
	if t.Key != "" || t.Op != "delete-everything" {
		s += " " + quote(t.Key)
	}
	if t.Until != "" {
		s += " to " + quote(t.Until)
	}
	if t.Type != "" {
		s += fmt.Sprintf(" %s of %d bytes", t.Type, t.size)
	}
	if t.Deadline != "" {
		s += " expires " + t.Deadline
	}
	if len(t.Value) > limit {
		s += " " + quote(t.Value[:limit]) + "…"
	} else if t.Value != "" {
		s += " " + quote(t.Value)
	}
	return s
}
