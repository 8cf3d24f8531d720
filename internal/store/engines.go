package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/safefile"
	"github.com/understudy-kv/understudy/internal/shard"
)

// Engines open the state machine that the programs use, Pebble, for shards that share their caches.
type Engines struct {
	fs     vfs.FS
	shared *engine.Shared
	tuning engine.Tuning
	log    hclog.Logger
}

// A shard finds out while it runs what its state machine can do.
var _ interface {
	shard.Leaver
	shard.Quieter
	shard.Hurrier
	shard.Progresser
} = (*engine.Engine)(nil)

// NewEngines makes the caches for a number of shards out of memory bytes, and background processors for their flushes and
// compactions ([engine.NewShared]). A nil fs is the machine's; the zero tuning is the programs'.
func NewEngines(fs vfs.FS, memory int64, shards int, background float64, tuning engine.Tuning, log hclog.Logger) *Engines {
	if log == nil {
		log = hclog.NewNullLogger()
	}
	return &Engines{fs: fs, shared: engine.NewShared(memory, shards, background), tuning: tuning, log: log}
}

// Open is a shard.Factory. A fault that the engine retries by itself, such as a full disk, does not stop the shard: it
// refuses what it cannot take for as long as that lasts.
func (e *Engines) Open(env shard.Env) (shard.StateMachine, error) {
	m, err := engine.Open(env.Dir, engine.Options{
		FS: e.fs, Shared: e.shared, Tuning: e.tuning, Logger: e.log.With("shard", env.Shard), BeforeFlush: env.BeforeFlush,
		OnError: func(err error) {
			var f *engine.Fault
			if !errors.As(err, &f) || f.Permanent {
				env.OnError(err)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Close gives the caches back. The shards must be closed.
func (e *Engines) Close() { e.shared.Close() }

// Peek tells what the data directory says before it is opened: its role, "" for a directory that has none yet, and its
// shard count, 0 if it has none yet.
func Peek(fs vfs.FS, dir string) (Role, int, error) {
	b, err := safefile.Read(fs, dir, nodeFile)
	if errors.Is(err, os.ErrNotExist) {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, err
	}
	var n node
	if err := json.Unmarshal(b, &n); err != nil {
		return "", 0, fmt.Errorf("%s: %w", fs.PathJoin(dir, nodeFile), err)
	}
	return n.Role, n.Shards, nil
}
