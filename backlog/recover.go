package backlog

import "fmt"

// Recovery is what Open found and did.
type Recovery struct {
	Next     uint64   // where the log goes on
	Synced   uint64   // what was known to be durable before
	CutFile  string   // the segment whose tail was cut, or ""
	CutBytes int64    // how much of it
	Dropped  []string // segments behind a hole that a power loss left
}

// found is what scanning one segment file found.
type found struct {
	path   string
	name   uint64 // first offset, from the file's name
	synced uint64 // from the header
	next   uint64 // offset behind the last good frame
	good   int64  // bytes of header and good frames
	size   int64  // of the file
	index  []mark
	fault  fault
}

// fault is why the good frames of a segment end before its file does.
type fault struct {
	kind   faultKind
	reason string
}

type faultKind uint8

const (
	faultNone    faultKind = iota
	faultZeros             // nothing but zeros follows: space that was given back, or never written
	faultTail              // an incomplete or damaged frame, and no good one behind it
	faultFrame             // a damaged frame with a good one behind it
	faultHeader            // the segment's own header
	faultForeign           // a good header of another format or another shard: never a matter of cutting
)

// verdict is what to do with the segments found.
type verdict struct {
	keep    int  // segments to keep; those behind are dropped
	cut     bool // cut the last kept one back to its good frames
	next    uint64
	corrupt *CorruptError // nothing is changed
}

// decideRecovery judges what a scan found, oldest segment first and at least one. Everything before the offset synced
// was durable once, so damage there is corruption. At or past it, a power loss may have left holes, and everything from
// the first hole on goes; without one, only the very tail of the last segment may be torn.
func decideRecovery(segments []found, synced uint64, powerLost bool) verdict {
	for _, s := range segments {
		synced = max(synced, s.synced)
	}
	next := segments[0].name
	for i, s := range segments {
		last := i == len(segments)-1
		h := hole{file: s.path, offset: next, keep: i}
		switch {
		case s.name < next:
			return h.corrupt(fmt.Sprintf("the file begins at offset %d, but the one before it ends at %d", s.name, next))
		case s.name > next:
			h.reason = fmt.Sprintf("the frames from offset %d to %d are missing", next, s.name)
			return h.judge(synced, powerLost && i > 0)
		case s.fault.kind == faultForeign:
			return h.corrupt(s.fault.reason)
		case s.fault.kind == faultHeader:
			h.reason = s.fault.reason
			return h.judge(synced, powerLost && i > 0)
		}
		next = s.next
		h = hole{file: s.path, pos: s.good, offset: next, keep: i + 1, cut: true, reason: s.fault.reason}
		switch s.fault.kind {
		case faultZeros:
			if !last && segments[i+1].name == next {
				continue // an append failed here, its space was zeroed, and a new segment was begun
			}
			return h.judge(synced, powerLost || last)
		case faultTail:
			return h.judge(synced, powerLost || last)
		case faultFrame:
			return h.judge(synced, powerLost)
		}
	}
	if next < synced {
		s := segments[len(segments)-1]
		h := hole{file: s.path, pos: s.good, offset: next}
		return h.corrupt(fmt.Sprintf("the log ends here, but everything before offset %d was synced", synced))
	}
	return verdict{keep: len(segments), next: next}
}

// hole is where the good frames end before the files do, and what cutting there would mean.
type hole struct {
	file   string
	pos    int64
	offset uint64
	reason string
	keep   int
	cut    bool
}

func (h hole) corrupt(reason string) verdict {
	return verdict{corrupt: &CorruptError{File: h.file, Byte: h.pos, Offset: h.offset, Reason: reason}}
}

func (h hole) judge(synced uint64, mayCut bool) verdict {
	switch {
	case h.offset < synced:
		return h.corrupt(fmt.Sprintf("%s; everything before offset %d was synced, so this is not a torn tail", h.reason, synced))
	case !mayCut:
		return h.corrupt(h.reason + "; the machine has not lost power, so this is not a torn tail")
	}
	return verdict{keep: h.keep, cut: h.cut, next: h.offset}
}
