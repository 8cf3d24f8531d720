package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
)

// profiled has a node's life profiled into file, from before it opens until it is asked to stop. An empty name changes nothing.
func profiled(file string, start starter) starter {
	if file == "" {
		return start
	}
	return func(ctx context.Context, quit func(string)) (runnable, error) {
		f, err := os.Create(file)
		if err != nil {
			return nil, fmt.Errorf("--cpu-profile: %w", err)
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return nil, errors.Join(fmt.Errorf("--cpu-profile: %w", err), f.Close())
		}
		n, err := start(ctx, quit)
		if err != nil {
			pprof.StopCPUProfile()
			return nil, errors.Join(err, f.Close())
		}
		return &profiledNode{n, f}, nil
	}
}

// profiledNode writes the profile before it stops, so that a stop that is given up still leaves one.
type profiledNode struct {
	runnable
	file *os.File
}

func (n *profiledNode) stop() error {
	pprof.StopCPUProfile()
	return errors.Join(n.file.Close(), n.runnable.stop())
}
