package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/faultproxy"
)

// TestFlipInTransit: a byte flipped in transit ends the session; nothing damaged is ever applied; the replica
// resumes. One flip falls into a frame, the next ones anywhere.
func TestFlipInTransit(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{})
	r := rng(t)
	l := p.primary.startLoad(loadOptions{value: 300, pause: time.Millisecond})
	l.waitAcked(500, 10*time.Second)
	before := p.marks()
	for i := range 5 {
		resumes := p.replica.counters().resumes
		p.proxy.FlipAfter(faultproxy.ToClient, uint64(r.IntN(50_000)))
		eventually(t, 20*time.Second, fmt.Sprintf("flip %d ends a session and the replica resumes", i), func() error {
			c := p.replica.counters()
			if c.resumes <= resumes {
				return fmt.Errorf("still %d resumes", c.resumes)
			}
			return streaming(p.replica, p.shards)
		})
	}
	p.proxy.FlipAfter(faultproxy.ToServer, 100) // In an ack.
	l.waitAcked(500, 10*time.Second)
	l.stop()
	eventually(t, 20*time.Second, "the replica streams", func() error { return streaming(p.replica, p.shards) })
	p.waitIdentical(20 * time.Second)
	l.check(p.replica)
	after := p.marks()
	wantEqual(t, "full syncs", after.replica.allFullSyncs(), before.replica.allFullSyncs())
	wantEqual(t, "mutations sent more than once", after.received-before.received, after.offsets-before.offsets)
}

// flipByte damages one byte of a file.
func flipByte(t *testing.T, file string, at int64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	must(t, err)
	b[0] ^= 0x40
	_, err = f.WriteAt(b, at)
	must(t, err)
}

// TestFlipInSegment: a byte flipped in a segment: start refused, with the file, the byte and the ways out; replctl log
// finds it too. The same for a replica, whose log is its primary's.
func TestFlipInSegment(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{shards: 1})
	p.primary.fill("k", 2*mib, 500)
	p.waitIdentical(20 * time.Second)
	p.primary.stop()
	p.replica.stop()
	for _, n := range []*node{p.primary, p.replica} {
		var segment string
		var size int64
		must(t, filepath.WalkDir(n.dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".seg") {
				if info, err := d.Info(); err == nil && info.Size() > size {
					segment, size = path, info.Size()
				}
			}
			return err
		}))
		if size < mib {
			t.Fatalf("%s: the largest segment has %d bytes", n.name, size)
		}
		if status, out, errs := command(t, 20*time.Second, "replctl", "log", "--check", n.dir); status != 0 {
			t.Errorf("%s: replctl log --check before the damage: status %d\n%s%s", n.name, status, out, errs)
		}
		flipByte(t, segment, size/2)
		n.launch()
		if status := n.proc.wait(20 * time.Second); status != 1 {
			t.Errorf("%s: started on a damaged log with status %d, want 1", n.name, status)
		}
		must(t, n.proc.logged(filepath.Base(segment)))
		status, out, errs := command(t, 20*time.Second, "replctl", "log", "--check", n.dir)
		if status == 0 || !strings.Contains(out+errs, filepath.Base(segment)) {
			t.Errorf("%s: replctl log --check after the damage: status %d\n%s%s", n.name, status, out, errs)
		}
		flipByte(t, segment, size/2)
	}
	p.primary.start()
	p.replica.start()
	p.waitStreaming(10 * time.Second)
	p.waitIdentical(10 * time.Second)
}

// TestTornTail: a torn tail of the last segment is cut, and said; what was acknowledged before it is there.
func TestTornTail(t *testing.T) {
	t.Parallel()
	n := newPrimary(t, 1).start()
	l := n.startLoad(loadOptions{clients: 1})
	l.waitAcked(500, 10*time.Second)
	l.stop()
	n.kill()
	segments := n.files("data-*/shard-000/log-*/*.seg")
	if len(segments) == 0 {
		t.Fatal("no segment was found")
	}
	last := segments[len(segments)-1]
	whole, err := os.ReadFile(last)
	must(t, err)
	// Half a frame, as a write that the machine did not finish would leave.
	must(t, os.WriteFile(last, append(whole, rawFrame(1, make([]byte, 64))[:50]...), 0o644))
	n.start()
	l.check(n)
	n.set("after", "x")
}

// TestFlipInStagedFile: a byte flipped in a snapshot file that was fetched already: the file is fetched again and the
// replica ends up identical.
func TestFlipInStagedFile(t *testing.T) {
	t.Parallel()
	p := prepare(t, setup{shards: 1, replica: []string{"--sync-rate", "4MiB"}})
	p.primary.start()
	p.primary.fill("k", 24*mib, 4096)
	p.replica.start()
	var staged string
	eventually(t, 20*time.Second, "a snapshot file is half there", func() error {
		for _, pattern := range []string{"data-*/shard-000/staging/*", "data-*/shard-000/staging/*/*", "data-*/shard-000/staging/*/*/*"} {
			for _, f := range p.replica.files(pattern) {
				if info, err := os.Stat(f); err == nil && info.Mode().IsRegular() && info.Size() > 2*mib {
					staged = f
					return nil
				}
			}
		}
		return fmt.Errorf("nothing in staging")
	})
	p.replica.kill()
	flipByte(t, staged, mib)
	p.replica.start()
	p.waitStreaming(60 * time.Second)
	p.waitIdentical(20 * time.Second)
	wantEqual(t, "damaged bytes that were loaded", p.replica.mustStatus().Shards[0].Error, "")
}
