package server

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/understudy-kv/understudy/internal/polite"
)

const (
	// judgeEvery is how often the gates are judged. Redis judges its own once a second, and at each ack.
	judgeEvery = 100 * time.Millisecond
	// DefaultMinReplicasMaxLag is Redis's default of min-replicas-max-lag.
	DefaultMinReplicasMaxLag = 10 * time.Second
)

// gates are what can close this node for writes or reads without its role changing. A gate that is not configured costs
// nothing.
type gates struct {
	minReplicas  atomic.Int64 // min-replicas-to-write; 0 is off
	maxLag       atomic.Int64 // min-replicas-max-lag, seconds; 0 is off
	maxStaleness atomic.Int64 // replica-max-staleness, nanoseconds; 0 is off

	mu struct { // one judgement at a time
		sync.Mutex
		few    bool          // the keyspace refuses writes
		tooOld time.Duration // the keyspace refuses reads, since data is older than this; 0 when it serves them
	}
}

func (s *Server) initGates() {
	g, o := &s.gates, &s.o
	g.minReplicas.Store(int64(o.MinReplicas))
	g.maxLag.Store(int64(o.MinReplicasMaxLag / time.Second))
	g.maxStaleness.Store(int64(o.MaxStaleness))
}

// good is how many replicas count for min-replicas-to-write, and ok whether anybody asks.
func (s *Server) good() (n int, ok bool) {
	lag := s.gates.maxLag.Load()
	if s.gates.minReplicas.Load() == 0 || lag == 0 {
		return 0, false
	}
	return s.backend.FreshReplicas(time.Duration(lag) * time.Second), true
}

// judge tells the keyspace which gates are closed. Acks that come late, and data that grows old while nothing happens, are
// noticed by the clock alone, so the server does this all the time.
func (s *Server) judge() {
	g := &s.gates
	g.mu.Lock()
	defer g.mu.Unlock()
	n, asked := s.good()
	if few := asked && int64(n) < g.minReplicas.Load(); few != g.mu.few {
		g.mu.few = few
		s.ks.SetNoReplicas(few)
		s.log.Warn("writes wait for replicas", "refused", few, "good_replicas", n, "min_replicas_to_write", g.minReplicas.Load())
	}
	limit := time.Duration(g.maxStaleness.Load())
	if limit > 0 && (s.backend.Role() != RoleReplica || s.backend.LagMillis() <= float64(limit)/float64(time.Millisecond)) {
		limit = 0
	}
	if limit != g.mu.tooOld {
		if g.mu.tooOld == 0 || limit == 0 {
			s.log.Warn("reads of old data", "refused", limit > 0, "replica_max_staleness", time.Duration(g.maxStaleness.Load()))
		}
		g.mu.tooOld = limit
		s.ks.SetTooOld(limit)
	}
}

// judgeAlways is the gates' ticker.
func (s *Server) judgeAlways() {
	t := polite.NewTicker(judgeEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			t.Next()
			s.judge()
		case <-s.quit:
			return
		}
	}
}

// gateParams are the parameters of the gates, under Redis's names where it has them.
func (s *Server) gateParams() []Param {
	g := &s.gates
	number := func(v *atomic.Int64, names ...string) (list []Param) {
		for _, name := range names {
			list = append(list, Param{Name: name, Get: func() string { return strconv.FormatInt(v.Load(), 10) }, Set: func(text string) error {
				n, err := intParam(text, 0, 1<<31-1)
				if err == nil {
					v.Store(n)
					s.judge()
				}
				return err
			}})
		}
		return list
	}
	list := number(&g.minReplicas, "min-replicas-to-write", "min-slaves-to-write")
	list = append(list, number(&g.maxLag, "min-replicas-max-lag", "min-slaves-max-lag")...)
	return append(list, Param{
		Name: "replica-max-staleness",
		Get:  func() string { return time.Duration(g.maxStaleness.Load()).String() },
		Set: func(text string) error {
			d, err := time.ParseDuration(text)
			if err != nil || d < 0 {
				return fmt.Errorf("argument must be a duration, such as 5s, or 0 for no limit")
			}
			g.maxStaleness.Store(int64(d))
			s.judge()
			return nil
		},
	})
}
