package engine_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/primary/machinetest"
)

// conforming is the engine with a look at single keys.
type conforming struct{ *engine.Engine }

func (c conforming) Get(key []byte) (value []byte, found bool, err error) {
	v, err := c.NewView()
	if err != nil {
		return nil, false, err
	}
	err = v.Raw(key, append(bytes.Clone(key), 0), func(_, got []byte) bool {
		value, found = bytes.Clone(got), true
		return false
	})
	if closed := v.Close(); err == nil {
		err = closed
	}
	return value, found, err
}

// The engine passes the suite that users' own state machines are held to.
func TestEngineConforms(t *testing.T) {
	machinetest.Run(t, func(dir string, beforeFlush func() error, onError func(error)) (machinetest.Machine, error) {
		e, err := engine.Open(dir, engine.Options{BeforeFlush: beforeFlush, OnError: onError})
		return conforming{e}, err
	}, machinetest.Options{Key: func(i int) []byte { return fmt.Appendf(nil, "\x01aaaaaa\x08%08d\x00", i) }})
}
