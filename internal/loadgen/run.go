package loadgen

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Run puts the server under load until the duration or the number of requests is reached, and waits for the last reply.
// It returns early with ctx's cause, an error reply, or a connection's error.
func Run(ctx context.Context, c Config) (*Result, error) {
	c.EnsureDefaults()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	threads := make([]*thread, c.Threads)
	defer func() {
		for _, t := range threads {
			if t != nil {
				t.close()
			}
		}
	}()
	for i := range threads {
		t, err := newThread(&c, i)
		if err != nil {
			return nil, err
		}
		threads[i] = t
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	errs := make([]error, len(threads))
	var done sync.WaitGroup
	began := time.Now()
	for i, t := range threads {
		// Run starts one goroutine a thread. It owns the thread and its connections, ends with its share of the requests, with
		// the first error of any or with ctx, and Run waits for all.
		done.Go(func() {
			if errs[i] = t.run(ctx, began); errs[i] != nil {
				cancel(errs[i])
			}
		})
	}
	done.Wait()
	total := &Result{Elapsed: time.Since(began)}
	for _, t := range threads {
		total.add(&t.result)
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return total, errors.Join(errs...)
}

// share is the part of n that thread i of all has.
func share(n int64, i, all int) int64 { return n*int64(i+1)/int64(all) - n*int64(i)/int64(all) }
