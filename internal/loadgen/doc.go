// Package loadgen puts a RESP server under load from few threads, cheaply: on a machine where the generator shares its
// cores with what it measures, every microsecond of its own is taken from the result.
//
// A thread owns its connections and waits for all of them with one epoll. A pipeline is built in one buffer and written
// at once; replies are counted where they lie in the read buffer. Nothing is allocated an operation.
//
// # Invariants
//
//  1. Every request is answered before Run returns without an error, and Result counts exactly these.
//  2. An error reply ends the run with its text: a figure is never made of failed operations.
//  3. With a rate, latency is measured from the moment at which a request was due, not from when it was sent: a server that
//     stalls is charged for every request that would have come meanwhile (coordinated omission).
//  4. Values are fresh random bytes: nothing that a server could compress or share.
//  5. The keys of a sequential run are each written once, whatever the number of threads.
package loadgen
