package e2e

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/faultproxy"
	"github.com/understudy-kv/understudy/internal/status"
)

// TestKillsInAHandover: the old primary, the target, or both are killed between the question and the answer of a handover,
// under load. When they are back there is one primary, with every acknowledged write, and nobody had to say so.
func TestKillsInAHandover(t *testing.T) {
	t.Parallel()
	for _, lost := range []faultproxy.Direction{faultproxy.ToServer, faultproxy.ToClient} {
		for _, who := range []string{"the old primary", "the target", "both"} {
			name := fmt.Sprintf("%s is killed, the question is lost", who)
			if lost == faultproxy.ToClient {
				name = fmt.Sprintf("%s is killed, the answer is lost", who)
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				p := newPrimary(t, 2)
				a := newReplica(t, "target", p.replication())
				at := freePorts(t, 2)
				proxy, err := faultproxy.Start(faultproxy.Options{Port: at, Target: a.replication(), Ports: 2})
				must(t, err)
				t.Cleanup(func() { proxy.Close() })
				a.args = append(a.args, "--announce-port-base", fmt.Sprint(at))
				a.base = at
				b := newReplica(t, "third", p.replication())
				nodes := []*node{p, a, b}
				for _, n := range nodes {
					n.start()
				}
				for _, n := range nodes[1:] {
					eventually(t, 20*time.Second, n.name+" streams", func() error { return streaming(n, 2) })
				}
				l := p.startLoad(loadOptions{clients: 2, pause: time.Millisecond, others: nodes})
				l.waitAcked(200, 10*time.Second)
				proxy.HoleAfter(lost, 1) // The first question and answer change nothing yet.
				host, port, _ := net.SplitHostPort(a.addr)
				p.command("FAILOVER", "TO", host, port, "TIMEOUT", "10000")
				eventually(t, 10*time.Second, "the target is asked", func() error {
					f := p.mustStatus().Failover
					return errorf(f != nil && f.State == status.FailoverInProgress, "%+v", f)
				})
				if lost == faultproxy.ToClient {
					a.waitRole("primary", 10*time.Second)
				}
				killed := map[string][]*node{"the old primary": {p}, "the target": {a}, "both": {p, a}}[who]
				for _, n := range killed {
					n.kill()
				}
				must(t, proxy.Heal())
				for _, n := range killed {
					n.start()
				}
				var one *node
				eventually(t, 20*time.Second, "the handover is over and there is one primary", func() error {
					one = nil
					for _, n := range nodes {
						st, err := n.status()
						if err != nil {
							return err
						}
						if st.Failover != nil && st.Failover.State != status.FailoverNone {
							return fmt.Errorf("%s: %+v", n.name, st.Failover)
						}
						if st.Role != "primary" {
							continue
						}
						if one != nil {
							t.Fatalf("%s and %s are both primaries", one.name, n.name)
						}
						one = n
					}
					return errorf(one != nil, "nobody is a primary")
				})
				if lost == faultproxy.ToClient && one != a {
					t.Errorf("the primary is %s; the target had taken over", one.name)
				}
				l.waitAcked(100, 20*time.Second) // Clients go on by themselves.
				l.stop()
				if one == a {
					b.follow(a)
				}
				for _, n := range nodes {
					if n != one {
						mirrors(t, one, n)
					}
				}
				l.check(one)
				for _, n := range nodes {
					wantEqual(t, "unwanted full syncs of "+n.name, n.unwanted(), 0)
				}
				t.Logf("%s is the primary; %d writes acknowledged, %d sent on, %d unknown", one.name, l.acked.Load(), l.moved.Load(), l.errors.Load())
			})
		}
	}
}
