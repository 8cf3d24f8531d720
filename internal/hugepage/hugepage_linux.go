package hugepage

import "golang.org/x/sys/unix"

// advise asks for it. An error means that there are none; nothing depends on them. The call that takes a slice would have to be given one
// of memory that is not only the caller's.
func advise(at, n uintptr) {
	from, size := around(at, n)
	_, _, _ = unix.RawSyscall(unix.SYS_MADVISE, from, size, unix.MADV_HUGEPAGE)
}
