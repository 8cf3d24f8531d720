package server

import (
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/understudy-kv/understudy/internal/command"
	"github.com/understudy-kv/understudy/internal/keyspace"
	"github.com/understudy-kv/understudy/internal/resp"
)

const (
	// maxPipeline is how many commands are executed as one pipeline; more are executed as several.
	maxPipeline = 1024
	// keepWriter is the size from which on a connection's write buffer is given back once it is sent.
	keepWriter = 64 << 10
	// keepAlive finds clients that are gone without a word: Redis's tcp-keepalive. What is not answered is asked again after
	// keepAliveAgain, keepAliveCount times.
	keepAlive      = 300 * time.Second
	keepAliveAgain = 15 * time.Second
	keepAliveCount = 9
)

// conn is one client's connection. One goroutine at a time owns everything but the fields marked as shared: its own, or
// its reactor (reactor.go).
type conn struct {
	s       *Server
	nc      net.Conn
	socket  *socket // nc, of a connection that a reactor serves
	id      int64
	created time.Time
	session *keyspace.Session
	parser  resp.Parser
	w       resp.Writer
	cmds    [][][]byte
	begun   bool // the session has begun with cmds,
	planned int  // and needs no more than Finish for so many of them
	ending  bool // close behind the reply

	// Shared: read by CLIENT LIST and INFO, on other goroutines.
	closed  atomic.Bool
	active  atomic.Int64 // when it last sent something, nanoseconds since 1970
	last    atomic.Pointer[command.Command]
	names   atomic.Pointer[names]
	proto   atomic.Int32
	queued  atomic.Int32 // commands in an open transaction, or -1
	memory  atomic.Int64
	waiting atomic.Bool // in WAIT, WAITAOF or REPL.WAITFOR, or its write is held
	noEvict atomic.Bool
	noTouch atomic.Bool
}

// names is what a client calls itself. It is replaced as a whole.
type names struct{ name, lib, version string }

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{s: s, nc: nc, created: time.Now()}
	c.session = s.ks.NewSession(c)
	c.names.Store(&names{})
	c.proto.Store(2)
	c.queued.Store(-1)
	c.active.Store(c.created.UnixNano())
	c.socket = reactorsSocket(nc)
	if tcp, ok := nc.(*net.TCPConn); ok {
		_ = tcp.SetNoDelay(true)
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepAlive, Interval: keepAliveAgain, Count: keepAliveCount})
	}
	return c
}

// turnAway ends a connection that was never served, since there are too many or the server ends.
func (c *conn) turnAway(full bool) {
	text := ""
	if full {
		text = "-ERR max number of clients reached\r\n"
	}
	if c.socket != nil {
		c.socket.turnAway(text)
		return
	}
	_ = c.nc.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = io.WriteString(c.nc, text)
	_ = c.nc.Close()
}

// close ends the connection, from any goroutine.
func (c *conn) close() {
	if c.closed.CompareAndSwap(false, true) {
		_ = c.nc.Close()
	}
}

// end forgets the connection. Its owner calls it last.
func (c *conn) end() {
	c.close()
	c.session.Close()
	c.s.clients.remove(c)
}

// serve is the life of a connection that has a goroutine of its own.
func (c *conn) serve() {
	defer c.end()
	for {
		if err := c.executeBuffered(); err != nil || c.ending {
			return
		}
		for t := c.s.timeout.Load(); t > 0; {
			_ = c.nc.SetReadDeadline(time.Now().Add(time.Duration(t)))
			now := c.s.timeout.Load() // CONFIG SET may have set its deadline before the one above
			if now == t {
				break
			}
			if t = now; t == 0 {
				_ = c.nc.SetReadDeadline(time.Time{})
			}
		}
		if c.s.stopped() { // Shutdown may have set its deadline before the one above
			return
		}
		if n, err := c.fill(time.Now()); err != nil && n == 0 {
			return
		}
	}
}

// fill reads once.
func (c *conn) fill(now time.Time) (int, error) {
	n, err := c.parser.Fill(c.nc)
	if n > 0 {
		c.s.stats.netIn.Add(uint64(n))
		c.active.Store(now.UnixNano())
	}
	return n, err
}

// parse takes the commands that have arrived. It returns nil if there may be more, resp.ErrShort if there are not, or why
// what follows will never be one. It may be called again before they are executed.
func (c *conn) parse() error {
	for len(c.cmds) < maxPipeline {
		args, err := c.parser.Next()
		if err != nil {
			return err
		}
		c.cmds = append(c.cmds, args)
	}
	return nil
}

// executeBuffered parses, executes and answers everything that has arrived.
func (c *conn) executeBuffered() error {
	for {
		broken := c.parse()
		if len(c.cmds) > 0 {
			if err := c.execute(); err != nil {
				return err
			}
		}
		if broken != nil && broken != resp.ErrShort && !c.ending {
			c.ending = true
			c.w.Error("ERR " + broken.Error())
		}
		if err := c.Flush(); err != nil {
			return err
		}
		if broken != nil || c.ending {
			return nil
		}
	}
}

// begin has the session begin with the commands at hand.
func (c *conn) begin(sink keyspace.Sink) {
	c.last.Store(command.Lookup(c.cmds[len(c.cmds)-1][0]))
	c.planned, c.begun = c.session.Begin(c.cmds, sink), true
}

func (c *conn) execute() error {
	if !c.begun {
		c.begin(c)
	}
	end, err := c.session.Finish(c.cmds[c.planned:], c)
	c.ending = c.ending || end
	c.executed()
	return err
}

// executed is behind the execution of the commands at hand.
func (c *conn) executed() {
	clear(c.cmds)
	c.cmds, c.begun = c.cmds[:0], false
	c.queued.Store(int32(c.session.InMulti()))
	c.memory.Store(int64(c.parser.Memory() + cap(c.w.Buf) + c.session.Memory()))
}

// Writer is the sink that the session replies to: see keyspace.Sink.
func (c *conn) Writer() *resp.Writer { return &c.w }

// Flush sends the replies that are held.
func (c *conn) Flush() error {
	if len(c.w.Buf) == 0 {
		return nil
	}
	return c.Send(nil)
}

// Send sends the replies that are held, and b behind them.
func (c *conn) Send(b []byte) error {
	for _, piece := range [...][]byte{c.w.Buf, b} {
		if len(piece) == 0 {
			continue
		}
		n, err := c.nc.Write(piece)
		c.s.stats.netOut.Add(uint64(n))
		if err != nil {
			return err
		}
	}
	c.sent()
	return nil
}

// sent empties the write buffer.
func (c *conn) sent() {
	c.w.Buf = c.w.Buf[:0]
	if cap(c.w.Buf) > keepWriter {
		c.w.Buf = nil
	}
}

// Command answers the commands that are not the keyspace's: see keyspace.Hook.
func (c *conn) Command(cmd *command.Command, args [][]byte, w *resp.Writer) (end bool) {
	c.last.Store(cmd)
	name, _, _ := strings.Cut(cmd.Name, "|")
	f := verbs[name]
	if f == nil {
		w.Error(command.UnknownCommand(args))
		return false
	}
	f(&call{conn: c, cmd: cmd, args: args, w: w})
	return c.ending
}

// call is one command that the server answers.
type call struct {
	*conn
	cmd  *command.Command
	args [][]byte
	w    *resp.Writer
}

// arg is the i-th argument as text, or "".
func (c *call) arg(i int) string {
	if i < len(c.args) {
		return string(c.args[i])
	}
	return ""
}

// is reports whether the i-th argument is the word, whatever the case of its letters.
func (c *call) is(i int, word string) bool { return strings.EqualFold(c.arg(i), word) }

// sub is the subcommand's name, "" for a command without.
func (c *call) sub() string {
	_, sub, _ := strings.Cut(c.cmd.Name, "|")
	return sub
}

// verbs are the commands that the server answers, by name; those with subcommands under the container's.
var verbs map[string]func(*call)

func init() {
	verbs = map[string]func(*call){
		"ping": ping, "echo": echo, "hello": hello, "auth": auth, "select": selectDB, "quit": quit, "reset": reset,
		"time": timeNow, "client": client, "command": describe, "config": configVerb, "info": info, "role": role,
		"wait": wait, "waitaof": waitAOF, "failover": failover, "replicaof": replicaOf, "slaveof": replicaOf, "shutdown": shutdown,
		"repl.promote": replPromote,
		"repl.slots":   replSlots, "repl.slot": replSlot, "repl.status": replStatus, "repl.snapshot": replSnapshot,
		"repl.token": replToken, "repl.waitfor": replWaitFor,
	}
}

// describe is COMMAND.
func describe(c *call) { command.Describe(c.w, c.args) }
