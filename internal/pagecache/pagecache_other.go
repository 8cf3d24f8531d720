//go:build !linux

package pagecache

import "github.com/cockroachdb/pebble/v2/vfs"

func bypass(int, bool) bool { return false }

func prefetch(int, int64, int64) error { return nil }

func free() int64 { return 0 }

// Mapping is there on Linux only.
type Mapping struct{}

func Map(vfs.File, int64) *Mapping { return nil }

func (*Mapping) Close() error { return nil }

func (*Mapping) Read([]byte, int64) bool { return false }
