package e2e

import (
	"fmt"
	"testing"
	"time"
)

// TestKills kills the primary, the replica or both at random instants under load, again and again: no acked write is
// lost, the keyspaces become identical, and no full sync happens that the design's table does not allow, which is none at all.
// 20 kills in the short suite, 210 with -long, spread over the three fsync policies.
func TestKills(t *testing.T) {
	t.Parallel()
	kills := 7
	if *long {
		kills = 70
	}
	for _, policy := range []string{"always", "everysec", "no"} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			r := rng(t)
			p := newPair(t, setup{primary: []string{"--fsync", policy}, replica: []string{"--fsync", policy}})
			began := p.marks()
			var tally killTally
			l := p.primary.startLoad(loadOptions{value: 200, pause: time.Millisecond})
			l.waitAcked(200, 20*time.Second)
			for i := range kills {
				who := r.IntN(3)
				hold(time.Duration(r.IntN(int(300 * time.Millisecond))))
				t.Logf("kill %d: %s", i, []string{"primary", "replica", "both"}[who])
				if who != 1 {
					tally.primary += p.primary.counters().allFullSyncs()
					p.primary.kill()
				}
				if who != 0 {
					tally.replica += p.replica.counters().allFullSyncs()
					p.replica.kill()
					p.replica.start()
				}
				if who != 1 {
					p.primary.start()
				}
				l.waitAcked(int64(r.IntN(300)+1), 30*time.Second)
				if i%7 == 6 || r.IntN(10) == 0 {
					l.stop()
					l.check(p.primary)
					p.waitStreaming(20 * time.Second)
					p.waitIdentical(30 * time.Second)
					l.check(p.replica)
					l = p.primary.startLoad(loadOptions{value: 200, pause: time.Millisecond})
				}
			}
			l.stop()
			l.check(p.primary)
			p.waitStreaming(20 * time.Second)
			after := p.marks()
			wantEqual(t, "full syncs at the primary", tally.primary+after.primary.allFullSyncs(), began.primary.allFullSyncs())
			wantEqual(t, "full syncs at the replica", tally.replica+after.replica.allFullSyncs(), began.replica.allFullSyncs())
			wantEqual(t, "generations", fmt.Sprint(after.generations), fmt.Sprint(began.generations))
		})
	}
}

// killTally sums the full syncs that processes had counted when they were killed.
type killTally struct{ primary, replica uint64 }
