package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/understudy-kv/understudy/internal/command/commandtest"
	"github.com/understudy-kv/understudy/internal/eventually"
	"github.com/understudy-kv/understudy/internal/keyspace"
	"github.com/understudy-kv/understudy/internal/keyspace/kstest"
	"github.com/understudy-kv/understudy/internal/node"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/internal/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeBackend is a Backend whose answers the test sets.
type fakeBackend struct {
	mu       sync.Mutex
	node     status.Node
	acked    int           // what Wait counts
	changed  chan struct{} // closed when acked changes
	dropped  string
	asked    []uint64
	level    AckLevel
	failover error         // why none begins
	fresh    int           // what FreshReplicas counts
	maxLag   time.Duration // what it was asked for
	lag      float64
	fsync    shard.Fsync
}

func newFakeBackend() *fakeBackend {
	return &fakeBackend{node: status.Node{Role: RolePrimary, ID: "node"}, changed: make(chan struct{})}
}

func (f *fakeBackend) Role() string { return f.Status().Role }
func (f *fakeBackend) Status() status.Node {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.node
}
func (f *fakeBackend) Following() (string, int) {
	if f.Role() == RoleReplica {
		return "primary.example", 16380
	}
	return "", 0
}
func (f *fakeBackend) Follow(_ context.Context, host string, port int) (bool, error) {
	if h, p := f.Following(); h == host && p == port {
		return true, nil
	}
	if host == "self.example" {
		return false, errors.New("the node would follow itself:\nname another")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.node.Role, f.node.Primary = RoleReplica, fmt.Sprint(host, ":", port)
	return false, nil
}
func (f *fakeBackend) Promote(_ context.Context, force bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.node.Error != "" && !force {
		return errors.New(f.node.Error)
	}
	f.node.Role = RolePrimary
	return nil
}
func (f *fakeBackend) Failover(_ context.Context, address string, limit time.Duration, force bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failover != nil {
		return f.failover
	}
	f.node.Failover = &status.Failover{State: status.FailoverWaiting, Target: fmt.Sprint(address, " ", limit, " ", force)}
	return nil
}
func (f *fakeBackend) AbortFailover() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.node.Failover == nil {
		return node.ErrNoFailover
	}
	f.node.Failover = nil
	return nil
}
func (f *fakeBackend) FreshReplicas(maxLag time.Duration) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.maxLag = maxLag
	return f.fresh
}
func (f *fakeBackend) LagMillis() float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lag
}
func (f *fakeBackend) Params() []Param { return []Param{fixed("reconnect-window", "60")} }
func (f *fakeBackend) DropSlot(id string) (int, error) {
	if id != "known" {
		return 0, errors.New("no slot of replica " + id)
	}
	f.dropped = id
	return 2, nil
}
func (f *fakeBackend) Wait(ctx context.Context, written []uint64, replicas int, level AckLevel) int {
	for {
		f.mu.Lock()
		f.asked, f.level = append([]uint64(nil), written...), level
		n, changed := f.acked, f.changed
		f.mu.Unlock()
		if n >= replicas {
			return n
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return n
		}
	}
}

func (f *fakeBackend) ack(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.acked = n
	close(f.changed)
	f.changed = make(chan struct{})
}

// rig is a server on a real socket, over shards in memory.
type rig struct {
	*Server
	node *fakeBackend
	ks   *keyspace.Keyspace
	addr string
	quit chan string
}

func start(t testing.TB, shards int, change func(*ServeOptions)) *rig {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startOn(t, l, shards, change)
}

func startOn(t testing.TB, l net.Listener, shards int, change func(*ServeOptions)) *rig {
	t.Helper()
	r := &rig{node: newFakeBackend(), ks: keyspace.New(keyspace.Options{}), quit: make(chan string, 1)}
	if shards > 0 {
		r.ks.SetShards(kstest.Shards(t, shards, nil, nil))
	}
	o := ServeOptions{Keyspace: r.ks, Backend: r.node, Version: "test", Shutdown: func(reason string) { r.quit <- reason }}
	if change != nil {
		change(&o)
	}
	r.Server = NewServer(o)
	r.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- r.Serve(l) }() // ended by Shutdown below, which waits for it
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := errors.Join(r.Shutdown(ctx), <-served); err != nil {
			t.Error(err)
		}
	})
	return r
}

// raw sends bytes and returns what comes until the server is silent behind the marker, or closes.
func (r *rig) raw(t testing.TB, send string) string {
	t.Helper()
	return rawTo(t, r.addr, send)
}

func rawTo(t testing.TB, addr, send string) string {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := nc.Write([]byte(send + "\r\nECHO end-of-test\r\n")); err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	in := bufio.NewReader(nc)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return got.String() + "<closed>"
		}
		if line == "$11\r\n" {
			if next, _ := in.Peek(11); string(next) == "end-of-test" {
				return got.String()
			}
		}
		got.WriteString(strings.TrimSuffix(line, "\r\n") + "|")
	}
}

// ids are the client ids in replies to HELLO.
var ids = regexp.MustCompile(`\|id\|:\d+\|`)

func TestConnectionCommands(t *testing.T) {
	r := start(t, 2, nil)
	for _, c := range []struct{ send, want string }{
		{"PING", "+PONG|"},
		{"PING hello", "$5|hello|"},
		{"PING a b", "-ERR wrong number of arguments for 'ping' command|"},
		{"SELECT 0\r\nSELECT 1\r\nSELECT x", "+OK|-ERR DB index is out of range|-ERR value is not an integer or out of range|"},
		{"QUIT\r\nPING", "+OK|<closed>"},
		{"SET a 1\r\nMULTI\r\nRESET\r\nGET a", "+OK|+OK|+RESET|$1|1|"},
		{"HELLO 3\r\nGET nosuch\r\nHELLO 2\r\nGET nosuch", "%7|$6|server|$5|redis|$7|version|$6|7.0.15|$5|proto|:3|$2|id|:ID|$4|mode|$10|standalone|$4|role|$6|master|$7|modules|*0|_|" +
			"*14|$6|server|$5|redis|$7|version|$6|7.0.15|$5|proto|:2|$2|id|:ID|$4|mode|$10|standalone|$4|role|$6|master|$7|modules|*0|$-1|"},
		{"CLIENT SETINFO lib-name x\r\nCLIENT SETINFO FOO x\r\nCLIENT SETINFO lib-ver \"a b\"", "+OK|-ERR Unrecognized option 'FOO'|-ERR lib-ver cannot contain spaces, newlines or special characters.|"},
		{"CLIENT REPLY OFF\r\nPING\r\nSET a 1\r\nCLIENT REPLY SKIP\r\nCLIENT REPLY ON\r\nGET a", "+OK|$1|1|"},
		{"CLIENT REPLY SKIP\r\nPING\r\nPING", "+PONG|"},
		{"SHUTDOWN ABORT\r\nSHUTDOWN FOO", "-ERR No shutdown in progress.|-ERR syntax error|"},
		{"*1\r\n$4\r\nPING\r\n*1\r\n$x\r\n", "+PONG|-ERR Protocol error: invalid bulk length|<closed>"},
		{"REPLICAOF NO ONE\r\nREPLICAOF h x", "+OK|-ERR Invalid master port|"},
		{"REPL.SLOT DROP known\r\nREPL.SLOT DROP other\r\nREPL.SLOT", ":2|-ERR no slot of replica other|-ERR wrong number of arguments for 'repl.slot' command|"},
	} {
		got := ids.ReplaceAllString(r.raw(t, c.send), "|id|:ID|")
		if got != c.want {
			t.Errorf("%q\n got %s\nwant %s", c.send, got, c.want)
		}
	}
}

// Replies of connection commands are Redis's, byte for byte.
func TestConnectionCommandsAgainstRedis(t *testing.T) {
	redisAddr := commandtest.StartRedis(t, "--databases", "1")
	r := start(t, 3, nil)
	for _, send := range []string{
		"MULTI\r\nMULTI\r\nPING\r\nEXEC", "MULTI\r\nWATCH a\r\nPING\r\nEXEC", "MULTI\r\nSHUTDOWN\r\nEXEC", "EXEC\r\nDISCARD\r\nUNWATCH",
		"MULTI\r\nWAIT 0 0\r\nFLUSHALL FOO\r\nMSET a 1 b\r\nUNWATCH\r\nDBSIZE\r\nRANDOMKEY\r\nSCAN x\r\nSELECT 0\r\nEXEC",
		"MULTI\r\nNOSUCH\r\nRESET\r\nQUIT", "MULTI\r\nGET\r\nSET a 1\r\nEXEC\r\nGET a", "HELLO 3\r\nMULTI\r\nGET nosuch\r\nEXEC\r\nWATCH x\r\nSET x 1\r\nMULTI\r\nEXEC\r\nDEL x",
		"SCAN 0 COUNT 0\r\nSCAN 0 COUNT x\r\nSCAN 0 FOO\r\nSCAN 0 MATCH\r\nSCAN -1\r\nSCAN 0 TYPE foo\r\nSCAN 18446744073709551616\r\nSCAN 00\r\nSCAN +0\r\nSCAN \"\"\r\nSCAN \" 0\"",
		"FLUSHALL SYNC\r\nFLUSHALL A B\r\nFLUSHDB async\r\nKEYS\r\nRANDOMKEY\r\nDBSIZE x",
		"SELECT 1\r\nSELECT a\r\nSELECT -1\r\nSELECT 99999999999\r\nAUTH x\r\nAUTH a b\r\nAUTH default x\r\nAUTH a b c",
		"HELLO 4\r\nHELLO x\r\nHELLO 3 AUTH a\r\nHELLO 2 SETNAME\r\nHELLO 2 SETNAME \"a b\"\r\nHELLO 2 FOO\r\nHELLO 2 AUTH a b",
		"CLIENT\r\nCLIENT FOO\r\nCLIENT ID X\r\nCLIENT KILL 1.2.3.4:5\r\nCLIENT KILL ID 999\r\nCLIENT KILL ID x\r\nCLIENT KILL TYPE foo\r\nCLIENT KILL TYPE pubsub\r\nCLIENT KILL FOO bar\r\nCLIENT KILL USER nosuch",
		"CLIENT LIST TYPE foo\r\nCLIENT LIST ID x\r\nCLIENT LIST FOO\r\nCLIENT LIST TYPE pubsub\r\nCLIENT GETNAME\r\nCLIENT SETNAME \"a b\"\r\nCLIENT SETNAME ab\r\nCLIENT GETNAME\r\nHELLO 2 SETNAME x\r\nCLIENT GETNAME\r\nCLIENT SETNAME \"\"\r\nCLIENT GETNAME",
		"CLIENT NO-EVICT on\r\nCLIENT NO-EVICT x\r\nCLIENT REPLY foo\r\nCLIENT GETREDIR\r\nCLIENT UNPAUSE\r\nCLIENT NO-EVICT",
		"CONFIG GET\r\nCONFIG GET maxclients\r\nCONFIG GET nosuch\r\nCONFIG GET MAXC* maxclients\r\nCONFIG SET foo bar\r\nCONFIG SET maxclients\r\nCONFIG SET maxclients x\r\nCONFIG SET timeout -1\r\nCONFIG SET timeout 10 timeout 20\r\nCONFIG SET databases 3\r\nCONFIG REWRITE\r\nCONFIG RESETSTAT\r\nCONFIG FOO\r\nCONFIG SET appendfsync foo\r\nCONFIG HELP",
		"CONFIG SET timeout 100 maxclients x\r\nCONFIG GET timeout\r\nCONFIG SET timeout 100 appendfsync NO\r\nCONFIG GET timeout\r\nCONFIG GET appendfsync\r\nCONFIG SET timeout 0 appendfsync everysec",
		"WAIT a 0\r\nWAIT 0 a\r\nWAIT 0 -1\r\nWAIT -1 0\r\nWAIT 0 0\r\nWAIT 1 10", "SHUTDOWN FOO\r\nSHUTDOWN ABORT\r\nSHUTDOWN ABORT NOW\r\nTIME A", "ROLE x\r\nECHO\r\nPING a b",
		"COMMAND GETKEYS PING\r\nCOMMAND GETKEYS MSET a 1 b 2\r\nCOMMAND FOO\r\nCOMMAND INFO get nosuch\r\nCOMMAND DOCS get",
		"GET\r\nnosuch a b c\r\nOBJECT HELP\r\nOBJECT FOO\r\nOBJECT ENCODING nosuch\r\nSET k v\r\nOBJECT ENCODING k\r\nRENAME k k2\r\nCOPY k2 k3\r\nRENAMENX k2 k3\r\nRENAME nosuch x\r\nMSETNX k3 1 k4 2\r\nMSETNX k4 1 k5 2\r\nDEL k2 k3 k4 k5",
		"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$-5\r\n", "*-1\r\n*0\r\nPING", "'unbalanced", "*1\r\nfoo\r\n",
	} {
		got, want := ids.ReplaceAllString(r.raw(t, send), "|id|:ID|"), ids.ReplaceAllString(rawTo(t, redisAddr, send), "|id|:ID|")
		if got != want {
			t.Errorf("%q\n got %s\nwant %s", send, got, want)
		}
	}
}

func TestGoRedis(t *testing.T) {
	for _, proto := range []int{2, 3} {
		t.Run(fmt.Sprint(proto), func(t *testing.T) {
			r := start(t, 3, nil)
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			// One that tries again, because the machine slept, would increment twice.
			c := redis.NewClient(&redis.Options{Addr: r.addr, Protocol: proto, ClientName: "test", MaxRetries: -1, ReadTimeout: 20 * time.Second})
			defer c.Close()
			check := func(what string, err error) {
				t.Helper()
				if err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
			check("set", c.Set(ctx, "a", "1", time.Hour).Err())
			if ttl := c.TTL(ctx, "a").Val(); ttl < time.Hour-time.Minute {
				t.Errorf("ttl %v", ttl)
			}
			if err := c.Get(ctx, "nosuch").Err(); err != redis.Nil {
				t.Errorf("got %v", err)
			}
			cmds, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
				for i := range 1000 {
					p.Set(ctx, fmt.Sprint("k", i), i, 0)
					p.Incr(ctx, "n")
				}
				return nil
			})
			check("pipeline", err)
			if n := cmds[len(cmds)-1].(*redis.IntCmd).Val(); n != 1000 {
				t.Errorf("n is %d", n)
			}
			check("tx", func() error {
				_, err := c.TxPipelined(ctx, func(p redis.Pipeliner) error {
					p.Set(ctx, "x", 1, 0)
					p.Rename(ctx, "x", "y")
					return nil
				})
				return err
			}())
			err = c.Watch(ctx, func(tx *redis.Tx) error {
				check("other", c.Set(ctx, "y", 2, 0).Err())
				_, err := tx.TxPipelined(ctx, func(p redis.Pipeliner) error { p.Get(ctx, "y"); return nil })
				return err
			}, "y")
			if err != redis.TxFailedErr {
				t.Errorf("got %v", err)
			}
			seen := 0
			it := c.Scan(ctx, 0, "k*", 50).Iterator()
			for it.Next(ctx) {
				seen++
			}
			check("scan", it.Err())
			if seen != 1000 || c.DBSize(ctx).Val() != 1003 || len(c.Keys(ctx, "*").Val()) != 1003 {
				t.Errorf("scanned %d, dbsize %d", seen, c.DBSize(ctx).Val())
			}
			if v := c.MGet(ctx, "k1", "nosuch", "k2").Val(); fmt.Sprint(v) != "[1 <nil> 2]" {
				t.Errorf("mget %v", v)
			}
			if n := c.Del(ctx, "k1", "k2", "k3", "nosuch").Val(); n != 3 {
				t.Errorf("del %d", n)
			}
			list := c.ClientList(ctx).Val()
			if !strings.Contains(list, "name=test") || !strings.Contains(list, "lib-name=go-redis") {
				t.Errorf("client list %s", list)
			}
			for _, section := range []string{"", "replication", "everything"} {
				text := c.Info(ctx, section).Val()
				if section == "" {
					text = c.Info(ctx).Val()
				}
				if !strings.Contains(text, "role:master\r\n") {
					t.Errorf("info %s: %s", section, text)
				}
			}
			commands, err := c.Command(ctx).Result()
			check("command", err)
			if commands["mget"] == nil || commands["mget"].LastKeyPos != -1 {
				t.Errorf("command: %v", commands["mget"])
			}
			check("flush", c.FlushAll(ctx).Err())
			if n := c.DBSize(ctx).Val(); n != 0 {
				t.Errorf("dbsize %d", n)
			}
		})
	}
}

func TestMaxClientsAndKill(t *testing.T) {
	r := start(t, 1, func(o *ServeOptions) { o.MaxClients = 2 })
	a, b := commandtest.Dial(t, r.addr, 2), commandtest.Dial(t, r.addr, 2)
	a.Do("CLIENT", "SETNAME", "a")
	b.Do("CLIENT", "SETNAME", "b")
	if got := r.raw(t, ""); got != "-ERR max number of clients reached|<closed>" {
		t.Errorf("got %s", got)
	}
	if got := string(a.Do("CLIENT", "KILL", "TYPE", "normal")); got != ":1\r\n" {
		t.Errorf("got %q", got)
	}
	eventually.True(t, 5*time.Second, "b is gone", func() bool { return r.clients.count() == 1 })
	if got := r.raw(t, "PING"); got != "+PONG|" {
		t.Errorf("got %s", got)
	}
	eventually.True(t, 5*time.Second, "only a is left", func() bool { return r.clients.count() == 1 })
	if got := string(a.Do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")); got != ":1\r\n" {
		t.Errorf("got %q", got)
	}
	eventually.True(t, 5*time.Second, "all are gone", func() bool { return r.clients.count() == 0 })
}

func TestIdleTimeout(t *testing.T) {
	r := start(t, 1, nil)
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	eventually.True(t, 5*time.Second, "the connection is there", func() bool { return r.clients.count() == 1 })
	r.setTimeout(10 * time.Millisecond) // reaches connections that wait already
	_ = nc.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := nc.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("read %d, %v", n, err)
	}
	eventually.True(t, 5*time.Second, "it is forgotten", func() bool { return r.clients.count() == 0 })
}

func TestWaiting(t *testing.T) {
	r := start(t, 3, nil)
	c := commandtest.Dial(t, r.addr, 2)
	if got := string(c.Do("WAIT", "1", "5")); got != ":0\r\n" {
		t.Errorf("got %q", got)
	}
	c.Do("SET", "a", "1")
	done := make(chan string, 1)
	go func() { done <- string(c.Do("WAIT", "2", "0")) }() // ended by the ack below, and waited for
	eventually.True(t, 5*time.Second, "it waits", func() bool { return strings.Contains(r.raw(t, "INFO clients"), "blocked_clients:1") })
	r.node.ack(2)
	if got := <-done; got != ":2\r\n" {
		t.Errorf("got %q", got)
	}
	// Only the shard that was written to is asked for.
	asked := uint64(0)
	for _, n := range r.node.asked {
		asked += n
	}
	if asked != 1 || r.node.level != AckApplied {
		t.Errorf("asked for %v at level %d", r.node.asked, r.node.level)
	}
	if got := string(c.Do("WAITAOF", "1", "1", "100")); got != "*2\r\n:1\r\n:2\r\n" || r.node.level != AckDurable {
		t.Errorf("got %q", got)
	}
	c.Do("SET", "a", "2")
	if got := string(c.Do("WAITAOF", "0", "3", "5")); got != "*2\r\n:0\r\n:2\r\n" {
		t.Errorf("got %q", got)
	}
	// In a transaction it looks and does not wait.
	c.Do("MULTI")
	c.Do("WAIT", "9", "0")
	if got := string(c.Do("EXEC")); got != "*1\r\n:2\r\n" {
		t.Errorf("got %q", got)
	}
	// A client that leaves is noticed.
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Write([]byte("WAIT 9 0\r\n")); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, 5*time.Second, "it waits", func() bool { return strings.Contains(r.raw(t, "INFO clients"), "blocked_clients:1") })
	nc.Close()
	eventually.True(t, 5*time.Second, "it is gone", func() bool { return strings.Contains(r.raw(t, "INFO clients"), "blocked_clients:0") })

	r.node.mu.Lock()
	r.node.node.Role = RoleReplica
	r.node.mu.Unlock()
	if got := string(c.Do("WAIT", "0", "0")); !strings.HasPrefix(got, "-ERR WAIT cannot be used with replica instances.") {
		t.Errorf("got %q", got)
	}
	if got := string(c.Do("WAITAOF", "0", "0", "0")); !strings.HasPrefix(got, "-ERR WAITAOF cannot be used with replica instances.") {
		t.Errorf("got %q", got)
	}
}

func TestShutdownVerb(t *testing.T) {
	r := start(t, 1, nil)
	if got := r.raw(t, "SET a 1\r\nSHUTDOWN NOSAVE"); got != "+OK|<closed>" {
		t.Errorf("got %s", got)
	}
	if reason := <-r.quit; !strings.HasPrefix(reason, "SHUTDOWN from 127.0.0.1:") {
		t.Errorf("reason %q", reason)
	}
}

// A stop answers what was sent, and does not wait for those who send nothing or wait for ever.
func TestStopWithConnections(t *testing.T) {
	r := start(t, 2, nil)
	for _, send := range []string{"", "PING\r\n", "WAIT 5 0\r\n", "*3\r\n$3\r\nSET\r\n"} {
		nc, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if _, err := nc.Write([]byte(send)); err != nil {
			t.Fatal(err)
		}
	}
	eventually.True(t, 5*time.Second, "it waits", func() bool { return strings.Contains(r.raw(t, "INFO clients"), "blocked_clients:1") })
	begun := time.Now()
	if err := r.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("took %v", took)
	}
}
