package primary

import (
	"testing"

	"github.com/understudy-kv/understudy/wire"
)

// BenchmarkDecide is the decision over a replica that resumes after the eighth of sixteen promotions.
func BenchmarkDecide(b *testing.B) {
	h, f := resuming()
	b.ReportAllocs()
	for b.Loop() {
		if v := Decide(h, f); v.Action != Resume {
			b.Fatal(v)
		}
	}
}

// TestDecideResumeAllocatesNothing: a thousand replicas that come back at once make no garbage by being judged.
func TestDecideResumeAllocatesNothing(t *testing.T) {
	h, f := resuming()
	if n := testing.AllocsPerRun(100, func() {
		if v := Decide(h, f); v.Action != Resume {
			t.Fatal(v)
		}
	}); n != 0 {
		t.Errorf("%g allocations a decision, want none", n)
	}
}

func resuming() (wire.Hello, Facts) {
	var l wire.Lineage
	for i := range 16 {
		l = l.Begin(wire.Generation{byte(i + 1)}, uint64(i*100))
	}
	f := Facts{Node: wire.ID{1}, Shards: 4, Lineage: l, Published: 2000, Values: true, Hold: Held}
	h := wire.Hello{Version: wire.Version, Replica: wire.ID{2}, Nonce: wire.ID{3}, Node: wire.ID{4}, Shards: 4, Lineage: l[:8],
		Position: wire.Position{Generation: wire.Generation{8}, Offset: 750}}
	return h, f
}
