package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"github.com/understudy-kv/understudy/internal/engine"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/keyspace"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/internal/store"
	"github.com/understudy-kv/understudy/wire"
)

// source is a real shard that takes writes, behind a scripted primary that serves its snapshot and its frames.
type source struct {
	*fakePrimary
	t        testing.TB
	shard    *shard.Shard
	keyspace *keyspace.Keyspace
	dir      string
}

func newSource(t testing.TB) *source {
	s := &source{fakePrimary: newFakePrimary(t), t: t, dir: t.TempDir()}
	s.chunk = 64 << 10
	engines := store.NewEngines(vfs.Default, 16<<20, 1, 0, engine.Tuning{}, nil)
	var err error
	s.shard, err = shard.Open(shard.Options{Dir: filepath.Join(s.dir, "shard"), Writable: true, Open: engines.Open, BootID: "boot"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.shard.Close(); err != nil {
			t.Error(err)
		}
		engines.Close()
	})
	s.keyspace = keyspace.New(keyspace.Options{})
	s.keyspace.SetShards([]*shard.Shard{s.shard})
	s.lineage = s.shard.Lineage()
	return s
}

func (s *source) set(from, to int) {
	for i := from; i < to; i++ {
		if _, err := s.keyspace.Do(context.Background(), "SET", fmt.Sprintf("key-%d", i), fmt.Sprintf("value-%d", i)); err != nil {
			s.t.Fatal(err)
		}
	}
	s.refresh()
}

// refresh offers what the shard's log has behind the present frames.
func (s *source) refresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.shard.Log().NewReader(s.next)
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Close()
	for end := s.shard.Position().Offset; s.next < end; {
		run, err := r.Next(context.Background(), 1<<20)
		if err != nil {
			s.t.Fatal(err)
		}
		for rest := bytes.Clone(run.Bytes); len(rest) > 0; {
			f, err := wire.ParseFrame(rest)
			if err != nil {
				s.t.Fatal(err)
			}
			s.frames, s.next, rest = append(s.frames, f.Raw), f.Next(), rest[len(f.Raw):]
		}
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// checkpoint makes the shard's present state the primary's snapshot, and forgets the log before it.
func (s *source) checkpoint(id byte) {
	dir := filepath.Join(s.dir, fmt.Sprint("snapshot-", id))
	at, err := s.shard.Checkpoint(dir)
	if err != nil {
		s.t.Fatal(err)
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		s.t.Fatal(err)
	}
	var files []file
	for _, n := range names {
		b, err := os.ReadFile(filepath.Join(dir, n.Name()))
		if err != nil {
			s.t.Fatal(err)
		}
		files = append(files, file{n.Name(), b})
	}
	if at.Offset != s.next {
		s.t.Fatalf("a checkpoint at %s, the log is at %d", at, s.next)
	}
	s.snap(id, files...)
}

func openNode(t *testing.T, n *network, dir string, change func(*Options)) *Node {
	o := Options{Dir: dir, Primary: "primary:7000", Memory: 16 << 20, Dial: n.dial}
	if change != nil {
		change(&o)
	}
	node, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return node
}

func expect(t *testing.T, n *Node, want any, wantErr string, args ...any) {
	t.Helper()
	got, err := n.Do(context.Background(), args...)
	if wantErr != "" {
		if err == nil || !strings.HasPrefix(err.Error(), wantErr) {
			t.Fatalf("%v: %v, %v; want %s", args, got, err, wantErr)
		}
		return
	}
	if err != nil || got != want {
		t.Fatalf("%v: %v, %v; want %v", args, got, err, want)
	}
}

func nodeCaughtUp(t *testing.T, n *Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := n.WaitCaughtUp(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestOpen is the life of a replica with Pebble: LOADING until it is filled, read-only, streaming, resuming after a
// restart, and then ahead of a primary that lost its tail: the surplus is saved before a full sync replaces it.
func TestOpen(t *testing.T) {
	s := newSource(t)
	s.set(0, 500)
	s.checkpoint(1)
	s.set(500, 600)
	s.refuse = &wire.Refusal{Version: wire.Version, Code: wire.CodeLoading, Text: "not yet"}
	network := &network{t: t, primaries: []*fakePrimary{s.fakePrimary}}
	dir := t.TempDir()
	quick := func(o *Options) { o.Backoff = Backoff{Patient: 50 * time.Millisecond, Max: 100 * time.Millisecond} }
	n := openNode(t, network, dir, quick)
	expect(t, n, nil, "LOADING", "GET", "key-1")
	if n.Status().Ready {
		t.Fatal("ready without data")
	}
	s.locked(func() { s.refuse = nil })
	nodeCaughtUp(t, n)
	expect(t, n, int64(600), "", "DBSIZE")
	expect(t, n, "value-599", "", "GET", "key-599")
	expect(t, n, nil, "READONLY", "SET", "a", "b")
	st := n.Status()
	if !st.Ready || st.Shards[0].FullSyncs["empty"] != 1 || st.Shards[0].Log.Next != 600 || st.Replica != n.ReplicaID().String() {
		t.Fatalf("%+v", st)
	}
	id := n.ReplicaID()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	network.serving.Wait()

	s.set(600, 700)
	s.locked(func() { s.refuse = &wire.Refusal{Version: wire.Version, Code: wire.CodeLoading, Text: "not yet"} })
	n = openNode(t, network, dir, quick)
	expect(t, n, int64(600), "", "DBSIZE") // stale, and served
	s.locked(func() { s.refuse = nil })
	nodeCaughtUp(t, n)
	expect(t, n, int64(700), "", "DBSIZE")
	if st := n.Status().Shards[0]; st.Resumes != 1 || len(st.FullSyncs) != 0 || n.ReplicaID() != id {
		t.Fatalf("%+v", st)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	network.serving.Wait()

	// The power loss: from 650 on the primary has another history.
	var lost []byte
	for _, raw := range s.frames {
		if f, err := wire.ParseFrame(raw); err == nil && f.First >= 650 {
			lost = append(lost, raw...)
		}
	}
	other := newSource(t)
	other.set(0, 10)
	other.checkpoint(2)
	other.lineage = wire.Lineage{s.lineage[0], {Generation: other.lineage[0].Generation, First: 650}}
	other.frames, other.at, other.next = nil, 10, 10
	network.primaries[0] = other.fakePrimary
	other.script = nil
	n = openNode(t, network, dir, quick)
	nodeCaughtUp(t, n)
	expect(t, n, int64(10), "", "DBSIZE")
	saved, err := filepath.Glob(filepath.Join(dir, "surplus", "*-650-700.frames"))
	if err != nil || len(saved) != 1 {
		t.Fatalf("%v, %v", saved, err)
	}
	if b, err := os.ReadFile(saved[0]); err != nil || !bytes.Equal(b, lost) {
		t.Fatalf("%s: %d bytes, want %d: %v", saved[0], len(b), len(lost), err)
	}
	if _, err := os.Stat(filepath.Join(dir, "previous", "shard-000")); err != nil {
		t.Fatal(err) // the previous data is kept
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	network.serving.Wait()
}

// TestRefuseStale: reads are refused while the link is down, if the options say so.
func TestRefuseStale(t *testing.T) {
	s := newSource(t)
	s.set(0, 10)
	s.checkpoint(1)
	network := &network{t: t, primaries: []*fakePrimary{s.fakePrimary}}
	n := openNode(t, network, t.TempDir(), func(o *Options) { o.RefuseStale = true })
	nodeCaughtUp(t, n)
	await(t, func() bool { v, _ := n.Do(context.Background(), "GET", "key-1"); return v == "value-1" })
	s.locked(func() { s.script = func(net.Conn, wire.Hello) error { return errors.New("down") } })
	s.cutAll()
	await(t, func() bool {
		_, err := n.Do(context.Background(), "GET", "key-1")
		return err != nil && strings.HasPrefix(err.Error(), "MASTERDOWN")
	})
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	network.serving.Wait()
}

// await waits for a condition for at most 20 seconds.
func await(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in time")
		}
	}
}

// TestOptions: every fault of the options is told, with its value.
func TestOptions(t *testing.T) {
	_, err := Open(Options{Primary: "nowhere", Fsync: "often", SyncRate: -1})
	for _, want := range []string{"Dir is empty", `"nowhere"`, `"often"`, "-1"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("%v does not name %s", err, want)
		}
	}
	if _, err := NewFollower(FollowerOptions{InboxBytes: -5}); err == nil || !strings.Contains(err.Error(), "-5") {
		t.Fatal(err)
	}
}
