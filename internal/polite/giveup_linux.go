package polite

import "syscall"

// giveUp has the kernel run another thread, if one waits for this one's processor. The Go scheduler is not told: the caller goes on soon.
var giveUp = func() { _, _, _ = syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0) }
