package engine

import (
	"fmt"
	"time"

	"github.com/understudy-kv/understudy/wire"
)

// String tells what the key is, for people: `"user:1" (slot 10778)`.
func (k Key) String() string {
	switch {
	case k.Kind == KeySystem:
		return fmt.Sprintf("system %q", k.Name)
	case k.Kind == KeyIndex:
		return fmt.Sprintf("expiry of %q at %s", k.User, stamp(k.Deadline))
	case k.Sub != SubRecord:
		return fmt.Sprintf("%q part %#x %q (slot %d)", k.User, k.Sub, k.Part, k.Slot)
	}
	return fmt.Sprintf("%q (slot %d)", k.User, k.Slot)
}

// describe tells what an operation of a frame does, in one line that quotes at most 64 bytes of a value.
func describe(op wire.Op) string {
	if op.Kind == wire.OpEnd {
		return "end"
	}
	if op.Kind == wire.OpDeleteRange {
		if from, to := KeyspaceBounds(); string(op.Key) == string(from) && string(op.Value) == string(to) {
			return "delete-range everything"
		}
		return fmt.Sprintf("delete-range [%x, %x)", clip(op.Key), clip(op.Value))
	}
	k, err := DecodeKey(op.Key)
	if err != nil {
		return fmt.Sprintf("%s %x: %v", op.Kind, clip(op.Key), err)
	}
	s := fmt.Sprintf("%s %s", op.Kind, k)
	if op.Kind != wire.OpPut || !k.IsRecord() {
		return s
	}
	r, err := DecodeRecord(op.Value)
	if err != nil {
		return fmt.Sprintf("%s: %v", s, err)
	}
	s = fmt.Sprintf("%s = %s %q", s, r.Type, clip(r.Value))
	if n := len(r.Value) - len(clip(r.Value)); n > 0 {
		s += fmt.Sprintf(" and %d bytes more", n)
	}
	if r.Deadline != 0 {
		s += " until " + stamp(r.Deadline)
	}
	return s
}

func stamp(millis int64) string {
	return time.UnixMilli(millis).UTC().Format("2006-01-02T15:04:05.000Z")
}
