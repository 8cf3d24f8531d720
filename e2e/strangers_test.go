package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestGarbage: garbage, an HTTP request, a TLS hello, or silence on the replication port: closed within 10 s, counted,
// no effect on others.
func TestGarbage(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{shards: 2})
	l := p.primary.startLoad(loadOptions{clients: 1, pause: 2 * time.Millisecond})
	before := p.marks()
	var wg sync.WaitGroup
	for name, send := range map[string][]byte{
		"garbage":                   bytes.Repeat([]byte{0x9c, 0x00, 0xff}, 1000),
		"an HTTP request":           []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"a TLS hello":               append([]byte{0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03}, bytes.Repeat([]byte{7}, 500)...),
		"a RESP command":            []byte("*1\r\n$4\r\nPING\r\n"),
		"silence":                   nil,
		"half a header":             rawHello(1)[:20],
		"half a hello":              rawHello(1, helloFields(1)...)[:60],
		"a header with a bad sum":   append([]byte{0x55, 0xd1, 4}, make([]byte, 29)...),
		"a hello with a bad sum":    flipped(rawHello(1, helloFields(1)...), 50),
		"a hello that claims 4 GiB": claim(0xffffffff),
		"a hello that claims 1 GiB": claim(1 << 30),
		"an ack first":              rawFrame(3, make([]byte, 24)),
		"an unknown required kind":  rawFrame(0x55, nil),
		"a hello of another shard":  rawHello(1, rawField{2, id16(1)}, rawField{6, []byte{9, 0, 0, 0}}),
		"a hello without an id":     rawHello(1),
	} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := closedWithin(t, p.primary.replication(), send, 10*time.Second); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}()
	}
	wg.Wait()
	l.waitAcked(100, 5*time.Second)
	l.stop()
	p.waitIdentical(10 * time.Second)
	after := p.marks()
	wantEqual(t, "resumes", after.replica.resumes, before.replica.resumes)
	wantEqual(t, "full syncs", after.replica.allFullSyncs(), before.replica.allFullSyncs())
	if after.primary.String() == before.primary.String() {
		t.Errorf("nothing of it was counted: %v", after.primary)
	}
	if rss, err := p.primary.proc.rss(); err != nil || rss > 700*mib {
		t.Errorf("%d MiB of memory after claims of gigabytes, %v", rss/mib, err)
	}
}

func flipped(b []byte, at int) []byte {
	b = append([]byte(nil), b...)
	b[at] ^= 1
	return b
}

// claim is a hello whose header, with a good checksum, claims a payload that never comes.
func claim(length uint32) []byte {
	b := rawFrame(4, nil)[:28]
	b[4], b[5], b[6], b[7] = byte(length), byte(length>>8), byte(length>>16), byte(length>>24)
	sum := crc32c(b)
	return append(b, byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24))
}

// TestIdleConnections: 1,000 idle connections on a replication port: refused past --max-replicas; shards unaffected,
// and the replica that is attached stays so.
func TestIdleConnections(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{shards: 2, primary: []string{"--max-replicas", "8"}})
	before := p.marks()
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range 1000 {
		c, err := net.DialTimeout("tcp", p.primary.replication(), 5*time.Second)
		if err == nil {
			conns = append(conns, c)
		}
	}
	began := time.Now()
	l := p.primary.startLoad(loadOptions{clients: 2})
	l.waitAcked(2000, 10*time.Second)
	l.stop()
	p.waitIdentical(10 * time.Second)
	t.Logf("%d connections stood when 2000 writes had been mirrored, %s later", len(conns), time.Since(began).Round(time.Millisecond))
	var wg sync.WaitGroup
	open := make(chan struct{}, len(conns))
	for _, c := range conns {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c.SetReadDeadline(time.Now().Add(10 * time.Second)) //nolint:errcheck // then the read fails
			buf := make([]byte, 1024)
			for {
				if _, err := c.Read(buf); err != nil {
					if ne, ok := err.(net.Error); ok && ne.Timeout() {
						open <- struct{}{}
					}
					return
				}
			}
		}()
	}
	wg.Wait()
	if n := len(open); n > 0 {
		t.Errorf("%d silent connections are open after 13 s", n)
	}
	p.mirror(10 * time.Second)
	after := p.marks()
	wantEqual(t, "resumes", after.replica.resumes, before.replica.resumes)
	wantEqual(t, "full syncs", after.replica.allFullSyncs(), before.replica.allFullSyncs())
}

// TestTwoProcessesOneID: the second process with one replica id is refused and told who holds it, on every shard, and the
// first goes on (pitfall 12). When the first ends the second takes over.
func TestTwoProcessesOneID(t *testing.T) {
	t.Parallel()
	id := "7f2a2b9c-9d6e-4a51-8f2e-3f1a0c5d7e11"
	p := newPair(t, setup{replica: []string{"--replica-id", id}})
	second := newReplica(t, "replica-2", p.primary.replication(), "--replica-id", id)
	second.start()
	eventually(t, 20*time.Second, "the second process is refused", func() error {
		s, err := second.status()
		if err != nil {
			return err
		}
		for _, sh := range s.Shards {
			if sh.Link != nil && strings.Contains(sh.Link.LastRefusal, "slot-taken") && strings.Contains(sh.Link.LastRefusal, "127.0.0.1:") {
				return nil
			}
		}
		return fmt.Errorf("%d shards, none was refused", len(s.Shards))
	})
	throughout(t, 2*time.Second, "the first process goes on", func() error { return streaming(p.replica, p.shards) })
	p.mirror(5 * time.Second)
	if n := p.primary.counters().refusals["slot-taken"]; n == 0 {
		t.Error("the primary has counted no refusal")
	}
	p.replica.kill()
	eventually(t, 20*time.Second, "the second process takes over", func() error { return streaming(second, p.shards) })
	eventually(t, 10*time.Second, "it catches up", func() error { return caughtUp(p.primary, second) })
	identical(t, p.primary, second)
}

// TestWrongCluster: another cluster name is refused at HELLO, before any data moves.
func TestWrongCluster(t *testing.T) {
	t.Parallel()
	p := prepare(t, setup{primary: []string{"--cluster-name", "orders"}, replica: []string{"--cluster-name", "invoices"}})
	p.primary.start()
	p.primary.set("k", "v")
	p.replica.start()
	eventually(t, 15*time.Second, "the replica is refused", func() error {
		return errorf(p.primary.counters().refusals["cluster-name"] > 0, "%v", p.primary.counters())
	})
	s := p.replica.mustStatus()
	for _, sh := range s.Shards {
		if sh.Link != nil && (sh.Link.SnapshotBytes > 0 || sh.Link.Bytes > 0) {
			t.Errorf("shard %d was sent data: %+v", sh.Shard, sh.Link)
		}
	}
	n, err := p.replica.rdb.DBSize(context.Background()).Result()
	if err == nil && n != 0 {
		t.Errorf("the replica has %d keys", n)
	}
}

// TestWrongVersion: another protocol version is refused at HELLO with the code that says so.
func TestWrongVersion(t *testing.T) {
	t.Parallel()
	p := prepare(t, setup{shards: 1})
	p.primary.start()
	kind, payload := answer(t, p.primary.replication(), rawHello(0x0200, helloFields(1)...))
	if kind != 7 || !bytes.Contains(payload, []byte("version")) {
		t.Errorf("kind %d: %q, want a refusal with the code version", kind, payload)
	}
	kind, payload = answer(t, p.primary.replication(), rawHello(1, helloFields(1)...))
	if kind != 6 || !bytes.Contains(payload, []byte("empty")) {
		t.Errorf("kind %d: %q, want a full sync with the reason empty", kind, payload)
	}
	eventually(t, 5*time.Second, "the refusal is counted", func() error {
		return errorf(p.primary.counters().refusals["version"] == 1, "%v", p.primary.counters())
	})
}

// TestOtherShardCount: a replica with another shard count than its primary gets a full sync with the reason shard-layout
// (pitfall 3), and then has the primary's layout.
func TestOtherShardCount(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{shards: 2})
	p.primary.fill("k", mib, 100)
	p.waitCaughtUp(10 * time.Second)
	p.primary.stop()

	other := newPrimary(t, 3)
	other.name, other.dir = "primary-3", other.dir+"-3"
	other.start()
	other.fill("k", mib, 120)
	p.replica.stop()
	p.replica.args = []string{"--primary", other.replication()}
	p.replica.start()
	eventually(t, 20*time.Second, "the replica streams three shards", func() error { return streaming(p.replica, 3) })
	eventually(t, 10*time.Second, "the replica catches up", func() error { return caughtUp(other, p.replica) })
	identical(t, other, p.replica)
	c := other.counters()
	// A link that dialled before another one had learned the new layout was answered too, and leaves that session.
	if n := c.fullSyncs["shard-layout"]; n < 3 || n > 3+2 || n != c.allFullSyncs() {
		t.Errorf("%v, want 3 to 5 full syncs for shard-layout and no other", c)
	}
}
