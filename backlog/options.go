package backlog

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/wire"
)

// Defaults and limits of [Options], in bytes.
const (
	DefaultMemory  = 16 << 20
	DefaultKeep    = 128 << 20
	DefaultDisk    = 2 << 30
	DefaultSegment = 32 << 20
	minMemory      = 4 << 10
	minSegment     = 4 << 10
	maxSlab        = 4 << 20
)

// Options say where a log lives and how much it may hold. FS and Dir must be set; everything else has a default.
type Options struct {
	// FS holds the files. It must allow WriteAt, ReadAt and Sync on one file at the same time, as vfs.Default and
	// vfs.MemFS do.
	FS vfs.FS
	// Dir is the log's own directory. Create makes it.
	Dir string
	// Memory is how many bytes of the newest frames are held in memory, whatever the number and the speed of readers.
	// Default 16 MiB.
	Memory int64
	// Keep is how many bytes of segments are kept whether or not anyone needs them. Default 128 MiB, at most Disk.
	Keep int64
	// Disk is the most bytes of segments that are kept because a slot needs them. The cap beats the slots; what recovery
	// needs beats the cap, so whoever uses the log sees to it that this is less. It is enforced a segment early, so that what is
	// appended between two trims fits in. Default 2 GiB.
	Disk int64
	// SegmentBytes is the size at which a new segment is begun. Trimming deletes whole segments, so it is also the grain
	// of Keep and Disk. Default 32 MiB, at most Disk/8.
	SegmentBytes int64
	// Generation names the history that an offset belongs to, for the headers of segments. Nil writes the zero one.
	Generation func(offset uint64) wire.Generation
	// Shard is written into the headers of segments and checked when they are read.
	Shard uint32
	// PowerLost tells Open that the machine may have died since the log was last open, so what was not synced may have
	// holes anywhere, not only a torn tail. The caller must go on saying so until an Open has succeeded: record the new
	// boot id after Open, not before.
	PowerLost bool
	// Logger hears of recoveries, cuts and files that could not be removed. Nil is silent.
	Logger hclog.Logger
}

// EnsureDefaults fills in what was left zero.
func (o *Options) EnsureDefaults() {
	if o.Memory == 0 {
		o.Memory = DefaultMemory
	}
	if o.Disk == 0 {
		o.Disk = max(DefaultDisk, o.Keep)
	}
	if o.Keep == 0 {
		o.Keep = min(DefaultKeep, o.Disk)
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = max(min(DefaultSegment, o.Disk/8), minSegment)
	}
	if o.Generation == nil {
		o.Generation = func(uint64) wire.Generation { return wire.Generation{} }
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
}

// Validate reports every fault at once.
func (o *Options) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf("backlog: "+format, args...)) }
	if o.FS == nil {
		fault("FS is nil: give vfs.Default or a file system for tests")
	}
	if o.Dir == "" {
		fault("Dir is empty: give the log a directory of its own")
	}
	if o.Memory < minMemory {
		fault("Memory is %d bytes, at least %d", o.Memory, minMemory)
	}
	if o.SegmentBytes < minSegment {
		fault("SegmentBytes is %d, at least %d", o.SegmentBytes, minSegment)
	}
	if err := validateLimits(o.Keep, o.Disk); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func validateLimits(keep, disk int64) error {
	if keep < 0 {
		return fmt.Errorf("backlog: Keep is %d bytes, which is less than none", keep)
	}
	if disk < keep {
		return fmt.Errorf("backlog: Disk is %d bytes, less than the %d of Keep: raise the one or lower the other", disk, keep)
	}
	return nil
}

// slabBytes is the size of a slab, and so of the largest frame that is held in memory.
func (o *Options) slabBytes() int { return int(min(o.Memory/4, maxSlab)) }
