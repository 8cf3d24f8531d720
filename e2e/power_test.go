package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// reboot makes the node's next processes see another boot id of the kernel, as after a loss of power, by mounting a file
// over it in a mount namespace of their own.
func (n *node) reboot() {
	n.t.Helper()
	id := filepath.Join(n.logs, n.name+"-boot-id")
	must(n.t, os.WriteFile(id, fmt.Appendf(nil, "00000000-0000-4000-8000-%012d\n", time.Now().UnixNano()%1e12), 0o644))
	n.wrap = []string{"unshare", "--mount", "sh", "-c", `mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"`, id}
	args := append(append([]string(nil), n.wrap[1:]...), "cat", "/proc/sys/kernel/random/boot_id")
	if out, err := exec.Command(n.wrap[0], args...).CombinedOutput(); err != nil || !bytes.HasPrefix(out, []byte("00000000-0000-4000")) {
		n.t.Skipf("another boot id cannot be shown to a process here: %v: %s", err, out)
	}
}

// TestPowerLoss: primary's machine lost power: new generation. A replica that is not ahead resumes along the
// lineage; one that is ahead, because the machine lost frames that it had sent, is diverged and gets a full sync.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	t.Run("replica not ahead", func(t *testing.T) {
		t.Parallel()
		p := newPair(t, setup{})
		l := p.primary.startLoad(loadOptions{pause: time.Millisecond})
		l.waitAcked(1000, 10*time.Second)
		must(t, p.proxy.Down())
		l.waitAcked(500, 10*time.Second)
		before := p.marks()
		p.primary.kill()
		l.stop()
		p.primary.reboot()
		p.primary.start()
		must(t, p.proxy.Up())
		p.waitStreaming(15 * time.Second)
		p.mirror(10 * time.Second)
		p.waitIdentical(15 * time.Second)
		l.check(p.primary) // Only the boot id changed: the page cache was not lost.
		l.check(p.replica)
		for _, s := range p.primary.mustStatus().Shards {
			if len(s.Lineage) != 2 {
				t.Errorf("shard %d: lineage %v, want a second generation", s.Shard, s.Lineage)
			}
		}
		after := p.marks()
		wantEqual(t, "full syncs at the primary", after.primary.allFullSyncs(), 0)
		wantEqual(t, "full syncs at the replica", after.replica.allFullSyncs(), before.replica.allFullSyncs())
	})
	t.Run("replica ahead", func(t *testing.T) {
		t.Parallel()
		p := newPair(t, setup{shards: 1, primary: []string{"--fsync", "no"}})
		p.primary.fill("k", mib, 500)
		p.waitCaughtUp(10 * time.Second)
		before := p.marks()
		must(t, p.proxy.Down())
		p.primary.kill()
		// What was not synced is gone: here, the end of the newest segment.
		segments := p.primary.files("data-*/shard-000/log-*/*.seg")
		last := segments[len(segments)-1]
		b, err := os.ReadFile(last)
		must(t, err)
		written := len(bytes.TrimRight(b, "\x00"))
		must(t, os.Truncate(last, int64(written-100_000)))
		p.primary.reboot()
		p.primary.start()
		p.primary.set("other", "history")
		must(t, p.proxy.Up())
		p.waitStreaming(20 * time.Second)
		p.waitIdentical(15 * time.Second)
		after := p.marks()
		wantEqual(t, "rejoins by difference", p.replica.rewinds(), 1)
		wantEqual(t, "full syncs at the replica", after.replica.allFullSyncs(), before.replica.allFullSyncs())
		if kept := p.replica.files("surplus/*.frames"); len(kept) != 1 {
			t.Errorf("surplus files %v, want one", kept)
		}
		if l := after.generations; len(l) != 2 || !strings.HasPrefix(l[0], strings.Split(before.generations[0], "@")[0]) {
			t.Errorf("lineage %v, want a second generation behind %v", l, before.generations)
		}
	})
}
