package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// smallDisk puts a file system of so many bytes under a node's directory, most of it taken by a ballast file. The
// returned function throws the ballast out.
func smallDisk(t *testing.T, n *node, bytes, ballast int64) (makeRoom func()) {
	t.Helper()
	must(t, os.MkdirAll(n.dir, 0o755))
	if err := syscall.Mount("tmpfs", n.dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		t.Skipf("a small disk cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if n.proc != nil && n.proc.running() {
			n.proc.kill()
		}
		if err := syscall.Unmount(n.dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	file := filepath.Join(n.dir, "ballast")
	must(t, os.WriteFile(file, make([]byte, ballast), 0o644))
	return func() { must(t, os.Remove(file)) }
}

// TestPrimaryDiskFull: disk full on the primary: it refuses writes, says so, keeps serving reads, and recovers when
// there is room. No acknowledged write is lost, and the replica is not disturbed.
func TestPrimaryDiskFull(t *testing.T) {
	t.Parallel()
	p := prepare(t, setup{shards: 1, primary: []string{"--backlog-memory", "1MiB", "--backlog-keep", "1MiB", "--backlog-disk", "16MiB", "--memory", "32MiB"}})
	makeRoom := smallDisk(t, p.primary, 256*mib, 200*mib)
	p.primary.start()
	p.replica.start()
	p.waitStreaming(20 * time.Second)
	p.primary.set("before", "x")
	l := p.primary.startLoad(loadOptions{value: 16 << 10, keys: 4096, clients: 2})
	ctx := context.Background()
	var refusal error
	eventually(t, 60*time.Second, "a write is refused", func() error {
		refusal = p.primary.rdb.Set(ctx, "probe", strings.Repeat("x", 100_000), 0).Err()
		return errorf(refusal != nil, "writes are accepted, %d so far", l.acked.Load())
	})
	if !strings.Contains(refusal.Error(), "no space") {
		t.Errorf("the refusal does not say why: %v", refusal)
	}
	if !p.primary.proc.running() {
		t.Fatalf("the process ended\n%s", p.primary.proc.tail(40))
	}
	value, err := p.primary.rdb.Get(ctx, "before").Result()
	if err != nil || value != "x" {
		t.Errorf("a read while the disk is full: %q, %v", value, err)
	}
	l.stop()
	makeRoom()
	eventually(t, 30*time.Second, "writes are accepted again", func() error { return p.primary.rdb.Set(ctx, "after", "x", 0).Err() })
	l.check(p.primary)
	p.waitStreaming(20 * time.Second)
	p.waitIdentical(20 * time.Second)
	l.check(p.replica)
}

// TestReplicaDiskFull: disk full on the replica: it stops applying and says so, the primary does not notice more than a
// replica that lags, and the replica recovers when there is room.
func TestReplicaDiskFull(t *testing.T) {
	t.Parallel()
	p := prepare(t, setup{shards: 1, replica: []string{"--backlog-memory", "1MiB", "--backlog-keep", "1MiB", "--backlog-disk", "16MiB", "--memory", "32MiB"}})
	makeRoom := smallDisk(t, p.replica, 256*mib, 200*mib)
	p.primary.start()
	p.replica.start()
	p.waitStreaming(20 * time.Second)
	before := p.marks()
	// Until the replica's disk is full, and no more: what is written must fit on it once there is room.
	for i := 0; ; i++ {
		p.primary.fill(fmt.Sprint("k", i), 4*mib, 8192)
		if s := p.replica.mustStatus(); s.Error != "" || s.Shards[0].Error != "" || strings.Contains(s.Shards[0].Link.LastError, "no space") {
			t.Logf("after %d MiB the replica says: %q %q %q", 4*(i+1), s.Error, s.Shards[0].Error, s.Shards[0].Link.LastError)
			break
		}
		if i > 20 {
			t.Fatalf("the replica has taken %d MiB, its disk had room for 56: %+v", 4*(i+1), p.replica.mustStatus().Shards[0])
		}
		hold(200 * time.Millisecond)
	}
	l := p.primary.startLoad(loadOptions{clients: 2, keys: 16})
	l.waitAcked(1000, 10*time.Second)
	l.stop()
	if l.errors.Load() > 0 {
		t.Errorf("%d writes failed at the primary", l.errors.Load())
	}
	makeRoom()
	p.waitStreaming(40 * time.Second)
	p.waitIdentical(40 * time.Second)
	l.check(p.replica)
	wantEqual(t, "full syncs", p.marks().replica.allFullSyncs(), before.replica.allFullSyncs())
}
