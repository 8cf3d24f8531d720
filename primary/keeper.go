package primary

import (
	"sync"
	"time"

	"github.com/understudy-kv/understudy/wire"
)

const (
	// keepEvery is how often slots are reaped and saved.
	keepEvery = time.Second
	// asleep is how late the keeper has to be for this process, or its machine, not to have run meanwhile.
	asleep = 2 * time.Second
	// rateSamples is how many samples of a log's end are kept: the write rate is told over that many seconds.
	rateSamples = 10
)

// keep is the keeper.
func (s *Server) keep() {
	ticker := time.NewTicker(keepEvery)
	defer ticker.Stop()
	var saved uint64
	failing := false
	for {
		waits := s.now()
		select {
		case <-ticker.C:
		case <-s.ctx.Done():
			return
		}
		if late := s.now() - waits - keepEvery; late >= asleep {
			s.slept(late)
		}
		s.reap()
		for _, p := range s.ports {
			s.present(p)
			p.rate.sample(s.now(), p.Log().Published())
			p.past.sample(s.now(), p.Log().Published())
			p.snapshots.sweep(s.ReconnectWindow(), func(id wire.ID) bool { return s.uses(p.ID(), id) })
		}
		s.mu.Lock()
		version := s.mu.table.Version()
		s.mu.Unlock()
		if version == saved {
			continue
		}
		err := s.saveSlots()
		if err == nil {
			saved = version
		} else if !failing {
			s.log.Error("slots cannot be saved; a restart would forget them", "error", err)
		}
		failing = err != nil
	}
}

// slept takes off the windows what this process slept through.
func (s *Server) slept(d time.Duration) {
	s.log.Warn("this process did not run for a while: it was stopped, or its machine was suspended or short of processors; reconnect windows are longer by that", "for", d.Round(time.Millisecond))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.table.Extend(d, s.now())
}

// reap forgets replicas that were away for the whole window. Their log is trimmed to the keep at the next trimming.
func (s *Server) reap() {
	now := s.now()
	s.mu.Lock()
	reaped := s.mu.table.Reap(now, s.ReconnectWindow())
	s.mu.Unlock()
	for _, slot := range reaped {
		s.log.Info("slot reaped: its replica was away for the reconnect window", "shard", slot.Shard, "replica", slot.Replica.String(),
			"offset", slot.Need, "address", slot.Address)
	}
}

// saveSlots writes slots.json, if there is a place for it.
func (s *Server) saveSlots() error {
	if s.opts.Dir == "" {
		return nil
	}
	s.mu.Lock()
	records := s.mu.table.Export()
	s.mu.Unlock()
	return saveSlots(s.opts.FS, s.opts.Dir, records)
}

// loadSlots takes up the slots of an earlier process. Slots are a promise to keep log, not data: when the file is
// damaged the promise is lost, which is told, and the primary starts.
func (s *Server) loadSlots() {
	if s.opts.Dir == "" {
		return
	}
	records, err := loadSlots(s.opts.FS, s.opts.Dir)
	if err != nil {
		s.log.Error("slots of the last run are lost; replicas that were away for long may need a full sync", "error", err)
		return
	}
	s.mu.table.Import(records, s.now())
}

// rate samples where a log's end is.
type rate struct {
	mu struct {
		sync.Mutex
		samples []sample // oldest first
	}
}

type sample struct {
	at        time.Duration
	published uint64
}

func (r *rate) sample(at time.Duration, published uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.mu.samples) > rateSamples {
		r.mu.samples = r.mu.samples[:copy(r.mu.samples, r.mu.samples[1:])]
	}
	r.mu.samples = append(r.mu.samples, sample{at, published})
}

// since is the oldest sample, and false before there is one.
func (r *rate) since() (sample, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.mu.samples) == 0 {
		return sample{}, false
	}
	return r.mu.samples[0], true
}
