package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"github.com/understudy-kv/understudy/internal/faultproxy"
	"github.com/understudy-kv/understudy/internal/ports"
	"github.com/understudy-kv/understudy/internal/replctl"
	"github.com/understudy-kv/understudy/internal/server"
	"github.com/understudy-kv/understudy/internal/units"
)

const host = "127.0.0.1"

// story is what happens on stage: two processes, the line between them, and somebody who writes.
type story struct {
	*grammar
	dir   string
	out   io.Writer
	began time.Time

	primaryAddr, replicaAddr string
	replication              int // port base of the primary
	primary, replica         *process
	line                     *faultproxy.Proxy
	writer                   *writer
}

func (s *story) say(format string, args ...any) {
	fmt.Fprintf(s.out, "%6.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// tell is the story. It returns whether the two keyspaces were identical at its end.
func (s *story) tell(ctx context.Context) (identical bool, err error) {
	for _, act := range []func(context.Context) error{s.openPrimary, s.openReplica, s.cutLink, s.killReplica} {
		if err := act(ctx); err != nil {
			return false, err
		}
	}
	if identical, err = s.compare(ctx); err != nil {
		return false, err
	}
	if s.Once {
		return identical, nil
	}
	return identical, s.linger(ctx)
}

// end stops everything that is still running.
func (s *story) end() (err error) {
	if s.writer != nil {
		s.writer.stop()
	}
	for _, p := range []*process{s.replica, s.primary} {
		if p != nil {
			err = errors.Join(err, p.stop())
		}
	}
	if s.line != nil {
		err = errors.Join(err, s.line.Close())
	}
	return err
}

// choosePorts takes ports for the story. They stay reserved until release, since the replica comes back to its own.
func (s *story) choosePorts() (release func() error, err error) {
	clients, releaseClients, err := ports.Reserve(host, 2)
	if err != nil {
		return nil, err
	}
	replication, releaseReplication, err := ports.Reserve(host, s.Shards)
	if err != nil {
		return nil, errors.Join(err, releaseClients())
	}
	s.primaryAddr, s.replicaAddr, s.replication = address(clients), address(clients+1), replication
	return func() error { return errors.Join(releaseClients(), releaseReplication()) }, nil
}

func (s *story) openPrimary(ctx context.Context) (err error) {
	s.say("Starting a primary with %d shards in %s.", s.Shards, s.dir)
	s.primary, err = launch(ctx, server.RolePrimary, filepath.Join(s.dir, "primary.log"),
		"--data-dir", filepath.Join(s.dir, "primary"), "--listen", s.primaryAddr,
		"--shards", strconv.Itoa(s.Shards), "--replication-port-base", strconv.Itoa(s.replication))
	if err != nil {
		return err
	}
	if s.writer, err = startWriter(ctx, s.primaryAddr, s.Rate); err != nil {
		return err
	}
	s.say("It serves clients on %s. Somebody begins to write %d commands a second, and will not stop.", s.primaryAddr, s.Rate)
	return s.pause(ctx, 2*time.Second)
}

func (s *story) openReplica(ctx context.Context) error {
	var err error
	s.line, err = faultproxy.Start(faultproxy.Options{Host: host, Target: address(s.replication), Ports: s.Shards})
	if err != nil {
		return err
	}
	s.say("Starting an empty replica on %s. It has to copy everything once: a full sync of each shard.", s.replicaAddr)
	if err := s.launchReplica(ctx); err != nil {
		return err
	}
	caught, err := s.catchUp(ctx, 0)
	if err != nil {
		return err
	}
	s.say("It has everything: %s of snapshot, and %s of what was written meanwhile. It lags by %s.",
		size(caught.link.snapshotBytes), size(caught.link.bytes), caught.lag())
	return s.pause(ctx, time.Second)
}

func (s *story) launchReplica(ctx context.Context) (err error) {
	s.replica, err = launch(ctx, server.RoleReplica, filepath.Join(s.dir, "replica.log"),
		"--data-dir", filepath.Join(s.dir, "replica"), "--listen", s.replicaAddr, "--primary", s.line.Addr())
	return err
}

// cutLink breaks the link for a while, under writes, and measures what it takes to make up for it.
func (s *story) cutLink(ctx context.Context) error {
	before, err := s.look(ctx)
	if err != nil {
		return err
	}
	s.say("Cutting the link between them for %s. The writing goes on.", s.Away)
	if err := s.line.Down(); err != nil {
		return err
	}
	if err := s.pause(ctx, s.Away); err != nil {
		return err
	}
	s.writer.pace(0) // so that what is resent can be told from what is new
	away, err := s.look(ctx)
	if err != nil {
		return err
	}
	s.say("The replica has missed %d mutations. The primary has kept %s of log for it, and would keep %s more.", away.missing(), size(away.retained), size(away.left))
	if err := s.line.Up(); err != nil {
		return err
	}
	after, err := s.catchUp(ctx, before.resumes+uint64(s.Shards))
	if err != nil {
		return err
	}
	s.writer.pace(s.Rate)
	s.say("Link restored. The replica tried again by itself, and every shard resumed where it had stopped: %d mutations resent, in %s, and %d full syncs.",
		after.link.mutations-away.link.mutations, size(after.link.bytes-away.link.bytes), after.fullSyncs-before.fullSyncs)
	return s.pause(ctx, time.Second)
}

// killReplica ends the replica's process in the hardest way there is.
func (s *story) killReplica(ctx context.Context) error {
	before, err := s.look(ctx)
	if err != nil {
		return err
	}
	s.say("Killing the replica with SIGKILL, in the middle of its work. The writing goes on.")
	dead := s.replica
	s.replica = nil
	if err := dead.kill(); err != nil {
		return err
	}
	if err := s.pause(ctx, 2*time.Second); err != nil {
		return err
	}
	if err := s.launchReplica(ctx); err != nil {
		return err
	}
	after, err := s.catchUp(ctx, before.resumes+uint64(s.Shards))
	if err != nil {
		return err
	}
	s.say("Started again, it found its own log whole and resumed: %d mutations in %s received, and %d full syncs. It lags by %s.",
		after.link.mutations, size(after.link.bytes), after.fullSyncs-before.fullSyncs, after.lag())
	return nil
}

// compare verifies the mirror, under writes like everything else.
func (s *story) compare(ctx context.Context) (identical bool, err error) {
	s.say("Comparing the two keyspaces, every shard at one position that both have reached.")
	v, err := replctl.Verify(ctx, replctl.VerifyOptions{Primary: s.primaryAddr, Replica: s.replicaAddr, Wait: 30 * time.Second, Keys: 10})
	if err != nil {
		return false, err
	}
	f, err := s.look(ctx)
	if err != nil {
		return false, err
	}
	var entries uint64
	for _, shard := range v.Shards {
		entries += shard.Entries
	}
	for _, d := range v.Differences {
		s.say("shard %d: key %s: %s: %s", d.Shard, d.Key, d.What, d.Sides)
	}
	answer := "yes"
	if !v.Identical {
		answer = fmt.Sprintf("NO, %d entries differ", v.Differing)
	}
	fmt.Fprintf(s.out, `
  writes confirmed by the primary   %d
  mutations, over all shards        %d
  keys and expiries compared        %d
  full syncs                        %s, when the replica was empty
  resumes                           %s, after the cut and after the kill
  lag now                           %s
  identical                         %s
`, s.writer.confirmed.Load(), f.primaryOffset, entries, s.perShard(f.fullSyncs), s.perShard(f.resumes), f.lag(), answer)
	return v.Identical, nil
}

// perShard tells a count of sessions, of which each shard has its own, as what happened to the replica as a whole.
func (s *story) perShard(n uint64) string {
	if n%uint64(s.Shards) == 0 {
		return fmt.Sprintf("%d (of each shard)", n/uint64(s.Shards))
	}
	return fmt.Sprintf("%d sessions in %d shards", n, s.Shards)
}

// linger leaves the stage to the audience.
func (s *story) linger(ctx context.Context) error {
	s.writer.pace(50)
	fmt.Fprintf(s.out, `
Both keep running, with 50 writes a second. Try, in another terminal:

  redis-cli -p %[1]s SET greeting hello        # a write at the primary
  redis-cli -p %[2]s GET greeting              # is there, at the replica
  redis-cli -p %[2]s SET greeting hello        # which refuses to be written to
  redis-cli -p %[1]s INFO replication
  redis-cli -p %[2]s ROLE
  go run ./cmd/replctl status --primary %[3]s --replica %[4]s
  go run ./cmd/replctl verify --primary %[3]s --replica %[4]s
  go run ./cmd/replctl log %[5]s --shard 0 | tail

Ctrl-C ends it.
`, port(s.primaryAddr), port(s.replicaAddr), s.primaryAddr, s.replicaAddr, filepath.Join(s.dir, "replica"))
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.writer.failed:
		return err
	}
}

// pause lets the others act for a while.
func (s *story) pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case err := <-s.writer.failed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func address(port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}

func size[T int64 | uint64](n T) string { return units.Human(float64(n)) }
