package hugepage

import (
	"os"

	"golang.org/x/sys/unix"
)

// advise asks for it. An error means that there are none; nothing depends on them. [unix.Madvise] takes a
// slice, which would have to reach beyond the caller's memory.
func advise(at, n uintptr) {
	from, size := around(at, n)
	_, _, _ = unix.RawSyscall(unix.SYS_MADVISE, from, size, unix.MADV_HUGEPAGE)
}

// populate is for whole pages that begin and end within the range: the others are in use as a rule.
func populate(at, n uintptr) {
	page := uintptr(os.Getpagesize())
	from := (at + page - 1) &^ (page - 1)
	to := (at + n) &^ (page - 1)
	if from < to {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_POPULATE_WRITE) // without it they are found when they are written to
	}
}
