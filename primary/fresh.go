package primary

import (
	"sort"
	"sync"
	"time"
)

// pastSamples is how many samples of a log's end are kept, one a second: an hour.
const pastSamples = 3600

// past tells where a log ended some time ago.
type past struct {
	mu struct {
		sync.Mutex
		samples []sample // oldest first
	}
}

func (p *past) sample(at time.Duration, published uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.mu.samples) >= pastSamples {
		p.mu.samples = p.mu.samples[:copy(p.mu.samples, p.mu.samples[1:])]
	}
	p.mu.samples = append(p.mu.samples, sample{at, published})
}

// at is where the log ended at that time or, by up to a second, before it; 0 for a time before the first sample.
func (p *past) at(t time.Duration) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := sort.Search(len(p.mu.samples), func(i int) bool { return p.mu.samples[i].at > t })
	if i == 0 {
		return 0
	}
	return p.mu.samples[i-1].published
}

// FreshReplicas is how many distinct replicas have live sessions on every shard, have been heard there within maxLag (and
// the second between two heartbeats), and have applied, on each shard, everything that was published maxLag ago. For a
// time before the server was made it asks for no more than the sessions. It is what min-replicas-to-write counts.
func (s *Server) FreshReplicas(maxLag time.Duration) int {
	now := s.now()
	offsets := make([]uint64, len(s.ports))
	for i, p := range s.ports {
		offsets[i] = p.past.at(now - maxLag)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.table.Fresh(offsets, now-maxLag-HeartbeatInterval)
}
