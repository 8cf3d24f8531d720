//go:build !linux

package pagecache

func bypass(int, bool) bool { return false }

func prefetch(int, int64, int64) error { return nil }

func free() int64 { return 0 }
