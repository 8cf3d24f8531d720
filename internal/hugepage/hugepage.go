// Package hugepage has the kernel back large pieces of memory with large pages.
//
// A processor remembers where some thousand pages of memory are, and has to look up all others in tables that are in memory
// themselves; in a virtual machine in two sets of them, one for each step of the other. Who jumps about in tens of
// megabytes looks up a page of 4 KiB for almost every jump, and next to no page of 2 MiB (docs/adr/0015).
package hugepage

import (
	"runtime"
	"unsafe"
)

// Size is that of a large page, in bytes, as the kernel gives it out on amd64 and on arm64 with small pages of 4 KiB.
const Size = 2 << 20

// Advise says that what s has room for should be on large pages. It is for memory that was just made, is used at random,
// and will be needed nearly all: a large page is as a rule given when the first byte of it is written to. What shares the first and the last page with s gets one, too. Less than half a
// large page is left alone, and so is everything where the operating system has none, or is told to give none: on Linux,
// /sys/kernel/mm/transparent_hugepage/enabled says never.
//
// It may be called from any goroutine, and costs a system call.
func Advise[T any](s []T) {
	n := uintptr(cap(s)) * unsafe.Sizeof(*new(T))
	if n >= Size/2 {
		advise(uintptr(unsafe.Pointer(unsafe.SliceData(s))), n)
	}
}

// Populate has the kernel find memory for what s has room for now, rather than when it is written to. What s holds stays. It may wait for as long as
// that takes, and does nothing where the operating system cannot (before Linux 5.14). It may be called from any goroutine.
func Populate[T any](s []T) {
	if n := uintptr(cap(s)) * unsafe.Sizeof(*new(T)); n > 0 {
		populate(uintptr(unsafe.Pointer(unsafe.SliceData(s))), n)
	}
	runtime.KeepAlive(s)
}

// around is the range of large pages that [at, at+n) touches.
func around(at, n uintptr) (from, size uintptr) {
	from = at &^ (Size - 1)
	return from, (at+n+Size-1)&^(Size-1) - from
}
