package pagecache

import "golang.org/x/sys/unix"

func prefetch(fd int, at, n int64) error { return unix.Fadvise(fd, at, n, unix.FADV_WILLNEED) }

func bypass(fd int, on bool) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return false
	}
	want := flags &^ unix.O_DIRECT
	if on {
		want |= unix.O_DIRECT
	}
	if want == flags {
		return true
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, want)
	return err == nil
}
