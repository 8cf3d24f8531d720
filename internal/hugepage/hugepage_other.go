//go:build !linux

package hugepage

func advise(at, n uintptr) {}

func populate(at, n uintptr) {}
