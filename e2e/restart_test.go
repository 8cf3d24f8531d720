package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestReplicaRestart: replica stopped cleanly, or killed, and restarted under load: resume.
func TestReplicaRestart(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"stop", "kill"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, setup{})
			l := p.primary.startLoad(loadOptions{pause: time.Millisecond})
			l.waitAcked(1000, 20*time.Second)
			before := p.marks()
			if how == "stop" {
				p.replica.stop()
			} else {
				p.replica.kill()
			}
			l.waitAcked(1000, 20*time.Second)
			p.replica.start()
			p.waitStreaming(15 * time.Second)
			l.stop()
			p.waitIdentical(20 * time.Second)
			l.check(p.replica)
			after := p.marks()
			wantEqual(t, "full syncs at the primary", after.primary.allFullSyncs(), before.primary.allFullSyncs())
			wantEqual(t, "full syncs at the replica", after.replica.allFullSyncs(), 0)
			wantEqual(t, "resumes at the replica", after.replica.resumes, uint64(p.shards))
			// The log is resumed where it ends: nothing that the replica had was sent again.
			if moved := after.offsets - before.offsets; after.received > moved {
				t.Errorf("the replica moved by %d mutations at most and was sent %d", moved, after.received)
			}
		})
	}
}

// TestPrimaryRestart: primary stopped cleanly and restarted: resume, same generation, slots kept.
func TestPrimaryRestart(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{})
	l := p.primary.startLoad(loadOptions{pause: time.Millisecond})
	l.waitAcked(1000, 20*time.Second)
	p.proxy.Down() // So that there is something to resume.
	l.waitAcked(200, 20*time.Second)
	l.stop()
	before := p.marks()
	p.primary.stop()
	p.primary.start()
	wantEqual(t, "detached slots after the restart", p.primary.slots()["detached"], p.shards)
	must(t, p.proxy.Up())
	p.waitStreaming(15 * time.Second)
	p.waitIdentical(20 * time.Second)
	l.check(p.primary)
	l.check(p.replica)
	after := p.marks()
	wantEqual(t, "full syncs at the primary", after.primary.allFullSyncs(), 0)
	wantEqual(t, "resumes at the primary", after.primary.resumes, uint64(p.shards))
	wantEqual(t, "full syncs at the replica", after.replica.allFullSyncs(), before.replica.allFullSyncs())
	wantEqual(t, "generations", fmt.Sprint(after.generations), fmt.Sprint(before.generations))
}

// TestPrimaryKill: kill -9 of the primary under each fsync policy on one boot: no acked write lost, same generation, resume.
func TestPrimaryKill(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"always", "everysec", "no"} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, setup{primary: []string{"--fsync", policy}})
			l := p.primary.startLoad(loadOptions{})
			l.waitAcked(2000, 30*time.Second)
			before := p.marks()
			p.primary.kill()
			p.primary.start()
			p.waitStreaming(15 * time.Second)
			l.waitAcked(200, 20*time.Second)
			l.stop()
			l.check(p.primary)
			p.waitIdentical(20 * time.Second)
			after := p.marks()
			wantEqual(t, "full syncs at the primary", after.primary.allFullSyncs(), 0)
			wantEqual(t, "full syncs at the replica", after.replica.allFullSyncs(), before.replica.allFullSyncs())
			wantEqual(t, "generations", fmt.Sprint(after.generations), fmt.Sprint(before.generations))
		})
	}
}

// TestEmptiedPrimary: primary's data directory emptied and the primary restarted: replicas refuse to be wiped, say so,
// and keep serving; --accept-empty-primary is the way out (pitfall 18).
func TestEmptiedPrimary(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{})
	for i := range 100 {
		p.primary.set(fmt.Sprint("precious:", i), "x")
	}
	p.waitCaughtUp(10 * time.Second)
	before := keyspace(t, p.replica)
	p.primary.stop()
	must(t, os.RemoveAll(p.primary.dir))
	p.primary.start()
	eventually(t, 20*time.Second, "the replica says why it does not follow", func() error {
		s, err := p.replica.status()
		if err != nil {
			return err
		}
		for _, sh := range s.Shards {
			if sh.Link == nil || !strings.Contains(sh.Link.LastError+sh.Link.LastRefusal+sh.Error, "empty") {
				return fmt.Errorf("shard %d: %s, error %q", sh.Shard, linkText(sh.Link), sh.Error)
			}
		}
		return nil
	})
	must(t, p.replica.proc.logged("--accept-empty-primary"))
	throughout(t, 3*time.Second, "the replica keeps serving", func() error {
		if err := streaming(p.replica, p.shards); err == nil {
			return fmt.Errorf("it streams from the empty primary")
		}
		n, err := p.replica.rdb.DBSize(context.Background()).Result()
		return errorf(err == nil && n == int64(len(before)), "DBSIZE %d, %v, want %d", n, err, len(before))
	})
	wantEqual(t, "keys at the replica", len(keyspace(t, p.replica)), len(before))

	p.replica.stop()
	p.replica.args = append(p.replica.args, "--accept-empty-primary")
	p.replica.start()
	p.waitStreaming(20 * time.Second)
	p.mirror(10 * time.Second)
	p.waitIdentical(10 * time.Second)
}

// TestReplicaPaused: replica paused under load: primary's memory flat; detached after 10 s; resumes. The short suite
// pauses for 15 s, the long one for 30.
func TestReplicaPaused(t *testing.T) {
	t.Parallel()
	pause := 15 * time.Second
	if *long {
		pause = 30 * time.Second
	}
	p := newPair(t, setup{primary: []string{"--backlog-memory", "4MiB", "--memory", "64MiB"}})
	l := p.primary.startLoad(loadOptions{value: 1000, pause: time.Millisecond})
	l.waitAcked(2000, 20*time.Second)
	before := p.marks()
	p.replica.pause()
	paused := time.Now()
	var peak int64
	detached := time.Duration(0)
	throughout(t, pause, "the primary's memory stays flat", func() error {
		rss, err := p.primary.proc.rss()
		if err != nil {
			return err
		}
		peak = max(peak, rss)
		if detached == 0 && p.primary.slots()["detached"] == p.shards {
			detached = time.Since(paused)
		}
		return errorf(rss < ((64+2*4)*mib+footprint)*12/10, "%d MiB of anonymous memory", rss/mib)
	})
	if detached < 5*time.Second || detached > 13*time.Second {
		t.Errorf("the replica was detached after %s, want about 10 s", detached)
	}
	t.Logf("detached after %s, anonymous memory at most %d MiB", detached.Round(100*time.Millisecond), peak/mib)
	p.replica.cont()
	p.waitStreaming(20 * time.Second)
	l.stop()
	p.waitIdentical(40 * time.Second)
	l.check(p.replica)
	p.expectResume(before)
}

// TestMachineSleeps: neither end runs for longer than either waits for a word of the other one, as when their machine is suspended or moved.
// Nobody was silent: the links stay up.
func TestMachineSleeps(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{})
	l := p.primary.startLoad(loadOptions{pause: time.Millisecond})
	l.waitAcked(200, 20*time.Second)
	l.stop()
	before := p.marks()
	p.primary.pause()
	p.replica.pause()
	throughout(t, 12*time.Second, "nobody runs", func() error { return nil })
	p.primary.cont()
	p.replica.cont()
	throughout(t, 3*time.Second, "the replica streams", func() error { return streaming(p.replica, p.shards) })
	p.mirror(10 * time.Second)
	p.waitIdentical(20 * time.Second)
	after := p.marks()
	wantEqual(t, "resumes", after.replica.resumes, before.replica.resumes)
	wantEqual(t, "full syncs", after.replica.allFullSyncs(), before.replica.allFullSyncs())
}

// TestPrimarySleeps: the primary's machine does not run for longer than the reconnect window. The replica that went before could not come
// back, so its window goes on where it was.
func TestPrimarySleeps(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{primary: []string{"--reconnect-window", "8s"}})
	p.replica.kill()
	eventually(t, 5*time.Second, "the slots are detached", func() error {
		n := p.primary.slots()["detached"]
		return errorf(n == p.shards, "%d of %d", n, p.shards)
	})
	p.primary.pause()
	throughout(t, 12*time.Second, "the primary does not run", func() error { return nil })
	p.primary.cont()
	throughout(t, 2*time.Second, "the slots are there", func() error {
		n := p.primary.slots()["detached"]
		return errorf(n == p.shards, "%d of %d", n, p.shards)
	})
	eventually(t, 20*time.Second, "the slots are reaped", func() error {
		n := p.primary.slots()["detached"]
		return errorf(n == 0, "%d are left", n)
	})
}
