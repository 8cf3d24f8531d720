// Package netpoll lets one goroutine that waits for many sockets take the reading of replication connections, too.
//
// A goroutine that waits for a socket in the Go runtime costs a wake-up of a thread for each message, wherever the processors
// are not busy anyway. What a primary streams to a replica, and what comes back as acks, are small messages, many of them. So
// the programs' reactors, which wait for clients, wait for these connections as well, and do what little there is to do.
//
// A [Conn] is a [net.Conn] like any other. Its reader may lend the reading to the poller, with a function that is called
// whenever there may be something to read, and gets it back when that function says so, after a while, or when the connection is closed.
//
// Invariants:
//
//  1. One goroutine at a time reads: the reader, or between Lend's beginning and its end the poller.
//  2. The poller reports edges. What is reported while somebody reads is looked for before the reading is lent, or lent again.
//  3. The descriptor is closed when nobody uses it, and no system call is made with it afterwards.
package netpoll

import (
	"errors"
	"net"
	"time"
)

// ErrWouldBlock is what TryRead and TryWrite return instead of waiting.
var ErrWouldBlock = errors.New("netpoll: it would have to wait")

// A Lender is a connection whose reading can be lent; *Conn is one, where there is one.
type Lender interface {
	net.Conn
	// TryRead is Read that does not wait: it returns ErrWouldBlock instead, and looks at no deadline. Who reads calls it.
	TryRead(b []byte) (int, error)
	// More reports whether there may be more to read that is not reported again: the last read took all there was room for, or the peer
	// has closed its side. Who reads calls it.
	More() bool
	// TryWrite writes what can be written without waiting, which may be less than b, or nothing, without an error. Who writes
	// calls it.
	TryWrite(b []byte) (int, error)
	// Lend lends the reading to the poller until serve returns false, the connection is closed, or the time is over. serve is called
	// on the poller's goroutine whenever there may be something to read; it must not wait, and reads until there is no More
	// before it returns true. Whoever calls Lend has read so far, too.
	Lend(serve func() bool, limit time.Duration)
}

// A Watcher wants to know what an epoll reports of a descriptor.
type Watcher interface {
	// Report takes what was reported, on the poller's goroutine, and returns true if Serve is to be called, there, soon. It is
	// quick, and calls nobody.
	Report(events uint32) bool
	Serve()
}

// A Poller waits for descriptors, each with edge-triggered reports of all kinds.
type Poller interface {
	// Watch begins to report to w, and forget ends it: once that returns Report is not called any more; a Serve may still come
	// that was asked for before.
	Watch(fd int, w Watcher) (forget func(), err error)
}
