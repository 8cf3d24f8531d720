package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/internal/keyspace"
	"github.com/understudy-kv/understudy/internal/version"
)

// drainLimit is how long a stop waits for clients to take their replies. The rest of stopLimit is the shards'.
const drainLimit = 3 * time.Second

// service is a running node with its clients' port: what both programs are.
type service struct {
	line   string
	server *Server
	served sync.WaitGroup
	fail   chan error // capacity 1
	close  func() error
}

func (s *service) ready() string        { return s.line }
func (s *service) failed() <-chan error { return s.fail }

// stop drains the clients, then closes the node, which records the clean stop.
func (s *service) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainLimit)
	defer cancel()
	err := s.server.Shutdown(ctx)
	s.served.Wait()
	return errors.Join(err, s.close())
}

// serve opens the clients' port of a node that is open already. closeNode closes the node; serve calls it on an error.
func serve(o *NodeOptions, log hclog.Logger, ks *keyspace.Keyspace, backend func(listen string) Backend, quit func(string), rs *reactors, closeNode func() error) (*service, error) {
	l, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("--listen: %w", err), closeNode())
	}
	addr := clientAddress(o.Listen, l)
	warnExposed(log, "clients", addr)
	s := &service{
		fail: make(chan error, 1), close: closeNode,
		server: NewServer(ServeOptions{
			Keyspace: ks, Backend: backend(addr), Params: o.params(log), Shutdown: quit, Version: version.String(), Logger: log.Named("clients"),
			MinReplicas: o.MinReplicasToWrite, MinReplicasMaxLag: o.MinReplicasMaxLag, MaxStaleness: o.ReplicaMaxStaleness, reactors: rs,
		}),
	}
	// serve starts the accept loop. It owns the listener and ends when stop closes it, or when accepting fails, which ends
	// the process; stop waits for it.
	s.served.Go(func() {
		if err := s.server.Serve(l); err != nil {
			s.fail <- err
		}
	})
	return s, nil
}

// clientAddress is the address as it was asked for, with the port that was taken if that was left open.
func clientAddress(asked string, l net.Listener) string {
	host, _, _ := net.SplitHostPort(asked) // Validate has tested it
	return net.JoinHostPort(host, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
}

// probe fails early, before minutes of recovery, if the clients' port is taken. The port is opened when the node is
// ready to serve: until then clients are better refused than left waiting.
func probe(listen string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	return l.Close()
}

// warnExposed says so when others than this machine can connect: nobody is asked for a password.
func warnExposed(log hclog.Logger, who, addr string) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
		return
	}
	log.Warn("other machines can connect, and nobody is asked for a password", "who", who, "listen", addr)
}

// params are the process's parameters for CONFIG.
func (o *NodeOptions) params(log hclog.Logger) []Param {
	return []Param{
		fixed("data-dir", o.DataDir),
		fixed("dir", o.DataDir),
		fixed("memory", strconv.FormatInt(int64(o.Memory), 10)),
		fixed("background-cpu", strconv.FormatFloat(o.BackgroundCPU, 'g', -1, 64)),
		fixed("backlog-memory", strconv.FormatInt(int64(o.BacklogMemory), 10)),
		fixed("cluster-name", o.ClusterName),
		fixed("log-format", o.LogFormat),
		{Name: "log-level", Get: func() string { return log.GetLevel().String() }, Set: func(v string) error {
			level, ok := logLevels[v]
			if !ok {
				return errors.New("argument(s) must be one of the following: trace, debug, info, warn, error")
			}
			log.SetLevel(level)
			return nil
		}},
	}
}
