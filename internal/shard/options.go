package shard

import (
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/wire"
)

// Options configure a shard. Dir, BootID and Open are required.
type Options struct {
	// FS holds everything. Default: the machine's.
	FS vfs.FS
	// Dir is the shard's own directory. It is made if need be.
	Dir string
	// Shard is the shard's id.
	Shard int
	// Writable shards take commands and begin a history when they have none; others only ingest.
	Writable bool
	// Open opens the state machine.
	Open Factory
	// BootID is the identity of the running kernel, which tells a killed process from a machine that lost power.
	BootID string
	// Fsync is the policy at start. Default: everysec.
	Fsync Fsync
	// BacklogMemory, BacklogKeep and BacklogDisk bound the backlog, in bytes; 0 takes package backlog's defaults.
	BacklogMemory, BacklogKeep, BacklogDisk int64
	// SegmentBytes is the size at which the log begins a new file; 0 takes package backlog's default.
	SegmentBytes int64
	// KeepPrevious is the directory into which Install moves the replaced state; empty deletes it.
	KeepPrevious string
	// Keeping is held while that directory is replaced, for who has others beside it; nil without them.
	Keeping sync.Locker
	// GroupBytes is the payload size from which on a group takes no more commands. Default 1 MiB: large enough that the
	// write and the fsync are shared by thousands of small commands, small enough to pass a link in milliseconds.
	GroupBytes int
	// NewGeneration draws a generation. Default: 128 random bits.
	NewGeneration func() wire.Generation
	// Now is the wall clock, for commit times and deadlines. Default: time.Now.
	Now func() time.Time
	// Logger may be nil, which is silent.
	Logger hclog.Logger
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Fsync == "" {
		o.Fsync = FsyncEverySec
	}
	if o.GroupBytes == 0 {
		o.GroupBytes = 1 << 20
	}
	if o.NewGeneration == nil {
		o.NewGeneration = func() (g wire.Generation) {
			rand.Read(g[:]) // never fails: crypto/rand ends the process instead
			return g
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
}

// Validate reports every fault of the options.
func (o *Options) Validate() error {
	var errs []error
	if o.Dir == "" {
		errs = append(errs, errors.New("shard: no directory"))
	}
	if o.Open == nil {
		errs = append(errs, errors.New("shard: no state machine"))
	}
	if o.BootID == "" {
		errs = append(errs, errors.New("shard: no boot id"))
	}
	if o.Shard < 0 || o.Shard > 255 {
		errs = append(errs, fmt.Errorf("shard: id %d is not within 0 and 255", o.Shard))
	}
	if _, err := ParseFsync(string(o.Fsync)); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
