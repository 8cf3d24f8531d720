package loadgen

import (
	"errors"
	"fmt"
	"time"
)

// Config is one run. Its zero value is not complete: Addr is required.
type Config struct {
	Addr     string          // the server, host:port
	Conns    int             // connections; default 50
	Threads  int             // threads, each with its share of the connections; default 1
	Pipeline int             // requests that a connection sends at once, and whose replies it awaits; default 1. Without a rate.
	Keys     uint64          // keys are drawn from so many, 1 to 2^32; default 1,000,000
	Order    Order           // how they are drawn
	Value    int             // bytes of a value; default 64
	Gets     int             // of 100 requests, how many are GET; the others are SET
	Rate     float64         // requests a second, each at its time whatever became of those before; 0 means as many as can be
	Duration time.Duration   // no request is begun after it; 0 means no such limit
	Requests int64           // no more requests than this; 0 means no such limit
	Stop     <-chan struct{} // no request is begun once it is closed; nil means no such limit
	Seed     uint64          // of the random draws
	Patience time.Duration   // how long the server may answer nothing while answers are due; default 30s
	Latency  bool            // fill in Result.Latency; always on with a rate
}

// EnsureDefaults replaces what is zero.
func (c *Config) EnsureDefaults() {
	set := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	set(&c.Conns, 50)
	set(&c.Threads, 1)
	set(&c.Pipeline, 1)
	set(&c.Value, 64)
	if c.Keys == 0 {
		c.Keys = 1_000_000
	}
	if c.Patience == 0 {
		c.Patience = 30 * time.Second
	}
	c.Latency = c.Latency || c.Rate > 0
}

// Validate reports every fault.
func (c *Config) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf("loadgen: "+format, args...)) }
	if c.Addr == "" {
		fault("no address to send to")
	}
	if c.Threads < 1 || c.Conns < c.Threads {
		fault("%d connections for %d threads: each thread needs one", c.Conns, c.Threads)
	}
	if c.Pipeline < 1 {
		fault("a pipeline of %d; give at least 1", c.Pipeline)
	}
	if c.Keys < 1 || c.Keys > 1<<32 {
		fault("%d keys are not within 1 and 2^32", c.Keys)
	}
	if c.Value < 1 {
		fault("values of %d bytes; give at least 1", c.Value)
	}
	if c.Gets < 0 || c.Gets > 100 {
		fault("%d of 100 requests are GET", c.Gets)
	}
	if c.Rate < 0 {
		fault("a rate of %g", c.Rate)
	}
	if c.Duration <= 0 && c.Requests <= 0 && c.Stop == nil && c.Order != Sequential {
		fault("no duration, no number of requests, nothing that stops it: it would never end")
	}
	return errors.Join(errs...)
}

// Result is what a run did.
type Result struct {
	Requests int64         // sent and answered
	Misses   int64         // GETs of keys that were not there
	Elapsed  time.Duration // from the first request to the last reply
	CPU      time.Duration // of the generator's threads
	Latency  Histogram     // with a rate: from when a request was due to its reply; else from the sending of its pipeline to the reply to the last of it
}

// add takes in another thread's result.
func (r *Result) add(o *Result) {
	r.Requests += o.Requests
	r.Misses += o.Misses
	r.CPU += o.CPU
	r.Latency.Merge(&o.Latency)
}
