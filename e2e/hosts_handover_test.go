package e2e

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/status"
)

// handOver asks the primary to hand over to the replica, and returns how it went.
func (l *line) handOver(timeout time.Duration) status.Failover {
	l.t.Helper()
	_, port, err := net.SplitHostPort(l.replica.addr)
	must(l.t, err)
	l.primary.command("FAILOVER", "TO", l.replica.host, port, "TIMEOUT", fmt.Sprint(timeout.Milliseconds()))
	var f *status.Failover
	eventually(l.t, timeout+15*time.Second, "the handover is over", func() error {
		f = l.primary.mustStatus().Failover
		return errorf(f != nil && f.State == status.FailoverNone, "%+v", f)
	})
	return *f
}

// TestNetworkHandover: the target of a handover is cut off, or heard by nobody, or deaf, or slow. A target that cannot get
// everything does not get the role: when the time is up, held writes go on at the old primary. Once the network is whole
// it takes over, and clients follow it; nothing that was acknowledged is lost.
func TestNetworkHandover(t *testing.T) {
	for _, test := range []struct {
		name  string
		fault func(*line)
		slow  bool
	}{
		{"target cut off", func(l *line) { l.hosts[1].unplug(true) }, false},
		{"target is not heard", func(l *line) { l.hosts[0].drop(l.hosts[1]) }, false},
		{"target is deaf", func(l *line) { l.hosts[1].drop(l.hosts[0]) }, false},
		{"target is slow", func(l *line) { l.hosts[0].slow(1_000_000); l.hosts[1].slow(1_000_000) }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := newLine(t, ip4)
			o := loadOptions{clients: 1, pause: 5 * time.Millisecond, others: []*node{l.primary, l.replica}}
			if test.slow {
				o.pipeline, o.value = 16, 1000
			}
			load := l.primary.startLoad(o)
			load.waitAcked(100, 10*time.Second)
			test.fault(l)
			if test.slow {
				load.waitAcked(1000, 20*time.Second) // more than the line takes meanwhile
				f := l.handOver(30 * time.Second)
				if f.Result != "done" || f.Hold < 100 {
					t.Fatalf("over a slow line: %+v", f)
				}
				t.Logf("writes were held for %.0f ms", f.Hold)
				l.hosts[0].slow(0)
				l.hosts[1].slow(0)
			} else {
				began := time.Now()
				f := l.handOver(2 * time.Second)
				if f.Result == "done" || f.Hold < 1900 || f.Hold > 6000 {
					t.Fatalf("to a target that cannot be reached: %+v", f)
				}
				wantEqual(t, "role of the primary", l.primary.mustStatus().Role, "primary")
				load.waitAcked(100, 10*time.Second)
				eventually(t, 10*time.Second-time.Since(began), "both sides notice", func() error { return l.upper().down(l.shards) })
				l.heal()
				l.waitStreaming(15 * time.Second)
				if n := load.moved.Load(); n > 0 {
					t.Errorf("%d writes were refused, though the role did not move", n)
				}
				if f := l.handOver(20 * time.Second); f.Result != "done" {
					t.Fatalf("over a whole network: %+v", f)
				}
			}
			wantEqual(t, "role of the target", l.replica.mustStatus().Role, "primary")
			load.waitAcked(100, 20*time.Second)
			load.stop()
			if n := load.errors.Load(); n > 0 || load.moved.Load() == 0 {
				t.Errorf("%d writes failed, %d were sent on to the new primary", n, load.moved.Load())
			}
			mirrors(t, l.replica, l.primary, l.chained)
			for _, n := range []*node{l.primary, l.replica, l.chained} {
				load.check(n)
				wantEqual(t, "unwanted full syncs of "+n.name, n.unwanted(), 0)
			}
		})
	}
}
