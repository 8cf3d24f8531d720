package bench

import (
	"context"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/client"
	"github.com/understudy-kv/understudy/internal/loadgen"
	"github.com/understudy-kv/understudy/internal/resp"
)

// fakeNode is a node that answers what the test wants: a map, and INFO.
type fakeNode struct {
	mu   sync.Mutex
	data map[string]string
	info string
}

func (f *fakeNode) do(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeNode) answer(args []resp.Value) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	bulk := func(s string) string { return "$" + strconv.Itoa(len(s)) + "\r\n" + s + "\r\n" }
	switch args[0].Str {
	case "DBSIZE":
		return ":" + strconv.Itoa(len(f.data)) + "\r\n"
	case "INFO":
		return bulk(f.info)
	}
	if v, ok := f.data[args[1].Str]; ok {
		return bulk(v)
	}
	return "$-1\r\n"
}

// start gives the node as the bench sees it, with a process that does nothing.
func (f *fakeNode) start(t *testing.T, name string) *node {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			done.Go(func() {
				defer c.Close()
				r := resp.NewReader(c)
				for {
					v, err := r.Read()
					if err != nil {
						return
					}
					if _, err := c.Write([]byte(f.answer(v.Elems))); err != nil {
						return
					}
				}
			})
		}
	})
	conn, err := client.Dial(context.Background(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	p, err := launch(t.TempDir(), name, "/bin/sleep", "600")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{name: name, addr: l.Addr().String(), conn: conn, proc: p}
	t.Cleanup(func() {
		n.kill() //nolint:errcheck // a process that does nothing
		l.Close()
		done.Wait()
	})
	return n
}

// mirrored is a primary and a replica with the same 100 keys.
func mirrored(t *testing.T) (p *pair, primary, replica *fakeNode) {
	t.Helper()
	if supported != nil {
		t.Skip(supported)
	}
	fake := func() *fakeNode {
		f := &fakeNode{data: map[string]string{}, info: "master_repl_offset:100\r\nslave_repl_offset:100\r\nmaster_link_status:up\r\n"}
		for i := range uint64(100) {
			f.data[loadgen.Key(i)] = "value " + strconv.FormatUint(i%10, 10)
		}
		return f
	}
	primary, replica = fake(), fake()
	return &pair{primary: primary.start(t, "primary"), replicas: []*node{{}}}, primary, replica
}

// TestVerifyFindsWhatIsWrong: a run counts only if every node holds the data.
func TestVerifyFindsWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(primary, replica *fakeNode)
		says  string
	}{
		"all is well":     {func(_, _ *fakeNode) {}, ""},
		"a key is gone":   {func(_, r *fakeNode) { delete(r.data, loadgen.Key(7)) }, "99 keys, want 100"},
		"a key too many":  {func(p, _ *fakeNode) { p.data["other"] = "x" }, "101 keys, want 100"},
		"nothing at all":  {func(_, r *fakeNode) { clear(r.data) }, "0 keys"},
		"old values":      {func(_, r *fakeNode) { swap(r, "value 3") }, "differs between"},
		"a cut off value": {func(_, r *fakeNode) { swap(r, "value") }, "5 bytes, want 7"},
		"another keyspace": {func(p, r *fakeNode) {
			for _, f := range []*fakeNode{p, r} {
				clear(f.data)
				for i := range 100 {
					f.data[strconv.Itoa(i)] = "value 1"
				}
			}
		}, "0 bytes, want 7"},
	} {
		t.Run(name, func(t *testing.T) {
			p, primary, replica := mirrored(t)
			c.spoil(primary, replica)
			p.replicas[0] = replica.start(t, "replica")
			err := p.verify(t.Context(), 100, len("value 1"))
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%v; want one that says %q", err, c.says)
			}
		})
	}
}

func swap(f *fakeNode, value string) {
	for k := range f.data {
		f.data[k] = value
	}
}

// TestReplicatedWaits: until the replica has applied what the primary had, over a link that is up.
func TestReplicatedWaits(t *testing.T) {
	p, _, replica := mirrored(t)
	replica.info = "slave_repl_offset:99\r\nmaster_link_status:up\r\n"
	p.replicas[0] = replica.start(t, "replica")
	done := make(chan error, 1)
	go func() { done <- p.replicated(t.Context()) }()
	early := func(what string) {
		t.Helper()
		select {
		case err := <-done:
			t.Fatalf("%s: it ended (%v)", what, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	early("one behind")
	replica.do(func() { replica.info = "slave_repl_offset:100\r\nmaster_link_status:down\r\n" })
	early("the link is down")
	replica.do(func() { replica.info = "slave_repl_offset:100\r\nmaster_link_status:up\r\n" })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := p.replicas[0].proc.kill(); err != nil {
		t.Fatal(err)
	}
	replica.do(func() { replica.info = "slave_repl_offset:1\r\nmaster_link_status:up\r\n" })
	if err := p.replicated(t.Context()); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("%v, want one that tells that the replica is dead", err)
	}
}

// Over as many runs as there are systems each has each place in the order once.
func TestRotated(t *testing.T) {
	names := []string{"a", "b", "c"}
	for place := range names {
		seen := map[string]int{}
		for run := range 2 * len(names) {
			seen[rotated(names, run)[place]]++
		}
		for _, name := range names {
			if seen[name] != 2 {
				t.Errorf("%s had place %d %d times in %d runs", name, place, seen[name], 2*len(names))
			}
		}
	}
}
