package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/internal/keyspace"
)

// acceptAgain is how long nothing is accepted behind an error that may pass.
const acceptAgain = 100 * time.Millisecond

// ServeOptions configure a [Server]. Keyspace and Backend are required.
type ServeOptions struct {
	Keyspace *keyspace.Keyspace
	Backend  Backend
	// MaxClients is how many connections are served at once; more are refused, politely. Default 10,000, as in Redis.
	MaxClients int
	// Timeout closes a connection that has sent nothing for so long. 0, the default, never does.
	Timeout time.Duration
	// MinReplicas good replicas are needed to write, ones whose applied ack is at most MinReplicasMaxLag (whole seconds) old;
	// 0, the default, needs none. CONFIG SET min-replicas-to-write and min-replicas-max-lag change them. The lag's default is
	// Redis's, 10 s.
	MinReplicas       int
	MinReplicasMaxLag time.Duration
	// MaxStaleness is how old what a replica's readers see may be; 0, the default, does not care. CONFIG SET
	// replica-max-staleness changes it.
	MaxStaleness time.Duration
	// Params are the process's parameters for CONFIG, beside those of the connections and of the Backend.
	Params []Param
	// Shutdown is asked to end the process, by SHUTDOWN. nil refuses the command.
	Shutdown func(reason string)
	// Version is the program's, for INFO.
	Version string
	// Logger may be nil, which is silent.
	Logger hclog.Logger

	reactors *reactors // shared with the node's other connections, and ended by whoever made them
}

// EnsureDefaults fills in what is zero.
func (o *ServeOptions) EnsureDefaults() {
	if o.MaxClients == 0 {
		o.MaxClients = 10_000
	}
	if o.MinReplicasMaxLag == 0 {
		o.MinReplicasMaxLag = DefaultMinReplicasMaxLag
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
}

// Server serves RESP connections, each of which is read, executed and answered in turn: by a reactor, where there is one
// (reactor.go), otherwise by a goroutine each. What a connection can
// make the process hold is bounded: the command that it is sending (1 GiB), its transaction (1 GiB), and the replies
// that it has not read (keyspace.Options.ReplyBytes and one value a shard), since the next command waits for them.
type Server struct {
	o         ServeOptions
	ks        *keyspace.Keyspace
	backend   Backend
	log       hclog.Logger
	clients   registry
	stats     stats
	rates     rates
	config    config
	snapshots snapshots
	keys      keyCounts
	gates     gates
	started   time.Time
	runID     string

	maxClients atomic.Int64
	timeout    atomic.Int64 // nanoseconds

	mu struct {
		sync.Mutex
		listeners map[net.Listener]struct{}
		closing   bool
	}
	quit     chan struct{}
	stopping context.Context // ends with quit
	stop     context.CancelFunc
	done     sync.WaitGroup // a connection counts from accept to end
	reactors *reactors
}

// NewServer makes a server and starts its sampling of rates. Close it.
func NewServer(o ServeOptions) *Server {
	o.EnsureDefaults()
	s := &Server{o: o, ks: o.Keyspace, backend: o.Backend, log: o.Logger, started: time.Now(), runID: newRunID(), quit: make(chan struct{})}
	s.stopping, s.stop = context.WithCancel(context.Background())
	s.mu.listeners = map[net.Listener]struct{}{}
	s.clients.init()
	s.maxClients.Store(int64(o.MaxClients))
	s.timeout.Store(int64(o.Timeout))
	s.rates.commandsFrom = &s.ks.Stats.Commands
	s.config.init(s)
	s.snapshots.init(s)
	if s.reactors = o.reactors; s.reactors == nil {
		s.reactors = newReactors(o.Logger)
	}
	s.reactors.server.Store(s)
	// The ticker samples rates and closes snapshots that nobody uses any more. It is ended by quit; Shutdown waits for it.
	s.done.Go(s.tick)
	s.initGates()
	s.judge() // before the first client
	// The judge closes and opens the gates for writes and reads. It is ended by quit; Shutdown waits for it.
	s.done.Go(s.judgeAlways)
	return s
}

// tick is the server's housekeeping, once a second.
func (s *Server) tick() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-s.quit:
			return
		case now := <-t.C:
			s.rates.sample(now, &s.stats)
			s.snapshots.expire(now)
		}
	}
}

// Serve accepts connections until Shutdown, and then returns nil, or until that is impossible. The listener is the server's from now on.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.mu.closing {
		s.mu.Unlock()
		return l.Close()
	}
	l = s.reactors.acceptor(s, l)
	s.mu.listeners[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.mu.listeners, l)
		s.mu.Unlock()
	}()
	for {
		nc, err := l.Accept()
		if err == nil {
			s.stats.connections.Add(1)
			s.accept(nc)
			continue
		}
		select {
		case <-s.quit:
			return nil
		default:
		}
		if hopeless(err) {
			return fmt.Errorf("accepting connections on %s: %w", l.Addr(), errors.Join(err, l.Close()))
		}
		text := "new clients wait: none can be accepted now"
		if errors.Is(err, syscall.EMFILE) {
			text += "; raise the limit of open files (ulimit -n), or lower maxclients"
		}
		s.log.Warn(text, "error", err, "retry_in", acceptAgain)
		select { // give the connections that there are time to end
		case <-time.After(acceptAgain):
		case <-s.quit:
			return nil
		}
	}
}

// hopeless reports whether an error of Accept's says that it would say so again. The others are a connection's own, such as a network
// that is down or a rule of a firewall's, or of a lack that may end.
func hopeless(err error) bool {
	for _, e := range []error{net.ErrClosed, syscall.EBADF, syscall.EINVAL, syscall.ENOTSOCK} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// accept serves nc, or refuses it. It must not wait where nc is a reactor's.
func (s *Server) accept(nc net.Conn) {
	c := newConn(s, nc)
	s.mu.Lock()
	full := s.clients.count() >= int(s.maxClients.Load())
	if s.mu.closing || full {
		s.mu.Unlock()
		if full {
			s.stats.rejected.Add(1)
		}
		c.turnAway(full)
		return
	}
	s.clients.add(c)
	if c.socket != nil {
		s.done.Add(1)
		s.mu.Unlock()
		c.attach()
		return
	}
	// The connection's goroutine owns the connection, its session and its buffers. It ends when the client leaves, is
	// killed or breaks the protocol, or when Shutdown closes the connection; Shutdown waits for it.
	s.done.Go(c.serve)
	s.mu.Unlock()
}

// stopped reports whether Shutdown was called.
func (s *Server) stopped() bool {
	select {
	case <-s.quit:
		return true
	default:
		return false
	}
}

// Shutdown stops accepting and ends the connections: those that wait for a command at once, others when they have
// replied to what they were sent, or when ctx ends. It returns when all of them have ended.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if s.mu.closing {
		s.mu.Unlock()
		s.done.Wait()
		return nil
	}
	s.mu.closing = true
	close(s.quit)
	s.stop()
	var errs []error
	for l := range s.mu.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	s.mu.Unlock()
	past := time.Unix(1, 0)
	s.clients.each(func(c *conn) { _ = c.nc.SetReadDeadline(past) })
	ended := make(chan struct{})
	// Started here to tell when the connections have ended; that is also what ends it, and it is waited for below.
	go func() {
		s.done.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		s.clients.each(func(c *conn) { c.close() })
		<-ended
	}
	if s.o.reactors == nil {
		s.reactors.close()
	}
	s.snapshots.closeAll()
	return errors.Join(errs...)
}
