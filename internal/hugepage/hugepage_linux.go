package hugepage

import "golang.org/x/sys/unix"

// advise asks for it. An error means that there are none; nothing depends on them. [unix.Madvise] takes a
// slice, which would have to reach beyond the caller's memory.
func advise(at, n uintptr) {
	from, size := around(at, n)
	_, _, _ = unix.RawSyscall(unix.SYS_MADVISE, from, size, unix.MADV_HUGEPAGE)
}
