package primary

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/understudy-kv/understudy/internal/node"
	"github.com/understudy-kv/understudy/internal/ports"
	"github.com/understudy-kv/understudy/primary/machinetest"
	"github.com/understudy-kv/understudy/wire"
)

func openMap(e MachineEnv) (StateMachine, error) {
	return machinetest.OpenMap(e.Dir, e.BeforeFlush, e.OnError)
}

func Example() {
	dir, err := os.MkdirTemp("", "primary")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	n, err := Open(Options{Dir: dir, Shards: 4})
	if err != nil {
		panic(err)
	}
	defer n.Close()
	ctx := context.Background()
	if _, err := n.Do(ctx, "SET", "greeting", "hello"); err != nil {
		panic(err)
	}
	v, err := n.Do(ctx, "GET", "greeting")
	fmt.Println(v, err)
	// A replica follows it with replica.Options{Primary: n.ReplicationAddr()}.

	// Output: hello <nil>
}

// A node keeps what it was given, its identity and its shard count.
func TestNodeRestarts(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	n, err := Open(Options{Dir: dir, Shards: 3, Memory: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		if _, err := n.Do(ctx, "SET", fmt.Sprint("key", i), i); err != nil {
			t.Fatal(err)
		}
	}
	before := n.Status()
	if !before.Ready || before.Role != "primary" || len(before.Shards) != 3 || before.Shards[0].Log.Keep != 128<<20 || before.Shards[0].Log.SyncPolicy != "everysec" {
		t.Fatalf("status %+v", before)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err = Open(Options{Dir: dir, Memory: 32 << 20}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	after := n.Status()
	if after.ID != before.ID || len(after.Shards) != 3 {
		t.Fatalf("status %+v", after)
	}
	for i, s := range after.Shards {
		if s.Position != before.Shards[i].Position {
			t.Errorf("shard %d is at %s, was at %s", i, s.Position, before.Shards[i].Position)
		}
	}
	if v, err := n.Do(ctx, "GET", "key49"); v != "49" || err != nil {
		t.Fatalf("%v, %v", v, err)
	}
	if _, err := n.Do(ctx, "INCR", "key1", "too many"); err == nil {
		t.Fatal("an error reply is not an error")
	}
}

// A node with the built-in keyspace takes no proposals; one that is closed says so, and closing it again does nothing.
func TestKeyspaceNode(t *testing.T) {
	n, err := Open(Options{Dir: t.TempDir(), Shards: 1, Memory: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	// Bytes that are no key of the keyspace's layout never reach the log, from which they could not be taken back.
	put := func(b *wire.Builder) error { b.Put([]byte("key"), nil); return nil }
	if _, err := n.Propose(context.Background(), 0, put); err == nil || !strings.Contains(err.Error(), "use Do") || n.Status().Shards[0].Offset != 0 {
		t.Errorf("propose: %v", err)
	}
	for range 2 {
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var reply ReplyError
	if _, err := n.Do(context.Background(), "GET", "key"); !errors.As(err, &reply) || !strings.HasPrefix(string(reply), "LOADING") {
		t.Errorf("GET: %v", err)
	}
}

func TestOptionsFaults(t *testing.T) {
	_, err := Open(Options{Shards: 300, Fsync: "sometimes", ReplicationPortBase: 65500})
	for _, want := range []string{"Dir", "300 shards", "sometimes", "65500-65799"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %q", err, want)
		}
	}
	// The range is known only from the directory.
	dir := t.TempDir()
	n, err := Open(Options{Dir: dir, Shards: 4, Memory: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Dir: dir, ReplicationPortBase: 65533}); err == nil || !strings.Contains(err.Error(), "65533-65536") {
		t.Fatalf("%v does not name the range", err)
	}
	// The ports are taken: nothing stays open or locked.
	base, err := ports.Free("127.0.0.1", 4)
	if err != nil {
		t.Fatal(err)
	}
	taken, err := node.Listen("127.0.0.1", base+3, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Dir: dir, ReplicationPortBase: base, Memory: 32 << 20}); err == nil {
		t.Fatal("opened on a taken port")
	}
	if err := taken[0].Close(); err != nil {
		t.Fatal(err)
	}
	if n, err = Open(Options{Dir: dir, ReplicationPortBase: base, Memory: 32 << 20}); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
}

// A state machine of the program's own: proposals, and a full sync of its files.
func TestOwnStateMachine(t *testing.T) {
	ctx := context.Background()
	n, err := Open(Options{Dir: t.TempDir(), Shards: 2, StateMachine: openMap})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := n.Do(ctx, "PING"); err == nil {
		t.Fatal("commands without a keyspace")
	}
	var at wire.Position
	for i := range 10 {
		at, err = n.Propose(ctx, 1, func(b *wire.Builder) error {
			b.Put(fmt.Append(nil, "key", i), []byte("value"))
			b.Delete([]byte("other"))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if at.Offset != 10 || n.Status().Shards[1].Offset != 10 {
		t.Fatalf("at %s, status %+v", at, n.Status().Shards[1])
	}
	refused := errors.New("not today")
	for name, build := range map[string]func(*wire.Builder) error{
		"refused": func(b *wire.Builder) error { b.Put([]byte("x"), nil); return refused },
		"ended":   func(b *wire.Builder) error { b.Put([]byte("x"), nil); b.End(); return nil },
	} {
		if _, err := n.Propose(ctx, 1, build); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := n.Propose(ctx, 2, nil); err == nil {
		t.Error("a shard that does not exist")
	}
	if got := n.Status().Shards[1].Offset; got != 10 {
		t.Fatalf("at %d after proposals that failed", got)
	}

	conn, err := dialTCP(n.n.Server().(*Server).ports[1].listener.Addr())
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, conn: conn, link: newLink(conn)}
	defer p.close()
	h := hello(1, wire.Position{})
	h.Shard = 1
	p.send(wire.AppendHello(nil, h))
	w := p.welcome(wire.KindFullSync)
	m, err := wire.ParseManifest(p.until(wire.KindManifest).Payload)
	if err != nil || len(m.Files) == 0 || w.Position != at {
		t.Fatalf("%+v at %s, %v", m, w.Position, err)
	}
	p.send(wire.AppendFetch(nil, wire.Fetch{Snapshot: m.Snapshot}))
	p.until(wire.KindSnapshotEnd)
	p.heartbeat()
	if _, err := n.Propose(ctx, 1, func(b *wire.Builder) error { b.Put([]byte("more"), nil); return nil }); err != nil {
		t.Fatal(err)
	}
	p.frames(10, 11)
	p.ack(11, 11, 11)
	if got := n.WaitAcked(ctx, []uint64{0, 11}, 1, 1); got != 1 {
		t.Fatalf("WAITAOF counted %d", got)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Propose(ctx, 1, func(*wire.Builder) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
