package shard

import "fmt"

// Fsync says when the log is synced. It decides what a reply promises; see docs/guarantees.md.
type Fsync string

// The policies, from the strongest.
const (
	FsyncAlways   Fsync = "always"   // before a reply or a frame leaves
	FsyncEverySec Fsync = "everysec" // once a second, in the background
	FsyncNo       Fsync = "no"       // when the kernel likes to
)

// ParseFsync reads a policy's name.
func ParseFsync(s string) (Fsync, error) {
	switch f := Fsync(s); f {
	case FsyncAlways, FsyncEverySec, FsyncNo:
		return f, nil
	}
	return "", fmt.Errorf("fsync policy %q is not known: use always, everysec or no", s)
}

// weaker returns the policy of the two that promises less: what a run that used both has promised for certain.
func weaker(a, b Fsync) Fsync {
	rank := map[Fsync]int{FsyncAlways: 2, FsyncEverySec: 1, FsyncNo: 0}
	if rank[b] < rank[a] {
		return b
	}
	return a
}
