//go:build !linux

package server

// socket and reactors are for Linux: here every connection has a goroutine of its own.
type socket struct{}

type reactors struct{ s *Server }

func (*reactors) adopt(*conn) bool { return false }
func (*reactors) close()           {}
func (*conn) attach()              {}
