package replctl

import (
	"strconv"
	"strings"
	"testing"

	"github.com/understudy-kv/understudy/internal/status"
	"github.com/understudy-kv/understudy/wire"
)

// shardAt is a shard whose lineage is written "A0 B100", and which is at offset.
func shardAt(t *testing.T, lineage string, offset uint64) history {
	t.Helper()
	s := status.Shard{Position: "none"}
	var l wire.Lineage
	for _, e := range strings.Fields(lineage) {
		first, err := strconv.ParseUint(e[1:], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		l = append(l, wire.Epoch{Generation: wire.Generation{e[0]}, First: first})
		s.Lineage = append(s.Lineage, wire.Lineage{l[len(l)-1]}.String())
	}
	if len(l) > 0 {
		s.Position = l.At(offset).String()
	}
	h, err := historyOf(s)
	if err != nil || !h.lineage.Equal(l) || h.at != l.At(offset) {
		t.Fatalf("%v, %v of %+v", h, err, s)
	}
	return h
}

func TestRelationOfTwoHistories(t *testing.T) {
	for _, c := range []struct {
		name    string
		primary string
		at      uint64
		replica string
		is      uint64
		follows bool
		want    relation
		fork    uint64
	}{
		{"behind", "A0", 100, "A0", 90, false, related, 0},
		{"the primary was asked first, and went on", "A0", 100, "A0", 110, false, related, 0},
		{"nothing yet", "A0", 100, "", 0, false, related, 0},
		{"nothing there", "", 0, "A0", 100, false, related, 0},
		{"another node's", "A0", 100, "B0", 100, false, strangers, 0},
		{"an older common past was forgotten", "B50 C100", 120, "A0", 40, false, strangers, 0},
		{"on the way to a promoted primary", "A0 B100", 120, "A0", 100, false, related, 0},
		{"a surplus", "A0 B100", 120, "A0", 101, false, diverged, 100},
		{"a surplus in a generation of its own", "A0 B100", 120, "A0 C80", 81, false, diverged, 80},
		{"promoted and demoted without a write", "A0 B100", 120, "A0 C100", 100, false, related, 0},
		{"epochs ahead of the offset do not count", "A0 B100", 120, "A0 C80", 70, false, related, 0},
		{"a primary that went back", "A0", 90, "A0 B100", 120, false, diverged, 100},
		{"a sibling that is behind", "A0", 90, "A0 B100", 120, true, related, 0},
		{"siblings of two primaries", "A0", 101, "A0 B100", 120, true, diverged, 100},
		{"siblings at ease", "A0 B100", 130, "A0 B100", 120, true, related, 0},
		{"siblings that are strangers", "A0", 10, "B0", 10, true, strangers, 0},
	} {
		if got, fork := shardAt(t, c.replica, c.is).relationTo(shardAt(t, c.primary, c.at), c.follows); got != c.want || fork != c.fork {
			t.Errorf("%s: %d from %d, want %d from %d", c.name, got, fork, c.want, c.fork)
		}
	}
}

func TestHistoryThatIsNone(t *testing.T) {
	for _, s := range []status.Shard{
		{Position: "x"}, {Position: "01:2"}, {Position: wire.Generation{1}.String() + ":x"}, {Lineage: []string{"x@0"}}, {Lineage: []string{wire.Generation{1}.String() + "@-1"}},
	} {
		if h, err := historyOf(s); err == nil {
			t.Errorf("%+v is taken for %+v", s, h)
		}
	}
}
