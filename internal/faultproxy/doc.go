// Package faultproxy is a TCP proxy that breaks on request. It stands between a replica and the primary's replication
// ports in the demo and in the end-to-end tests, where packets themselves cannot be touched: it cuts connections,
// refuses new ones, swallows one direction, delays, limits the rate, cuts in the middle of a frame, and flips a byte.
//
// One Proxy listens on a row of ports, base and up, and forwards port base+i to target+i, so that a whole sharded link
// has one switchboard.
//
// # Invariants
//
//  1. What passes is unchanged, in order and complete, except for what [Proxy.FlipAfter] and [Proxy.CutAfter] asked for.
//     A black hole therefore holds bytes back rather than dropping them: when it ends, the stream goes on without a gap,
//     as TCP's retransmission would have it.
//  2. While a direction is a black hole nothing of it arrives: no byte, no end of stream, no reset. A peer that closes
//     its end leaves the other one half-open. New connections are taken, and go nowhere.
//  3. [Proxy.Cut] passes everywhere, black hole or not: it resets both ends.
//  4. Close ends every goroutine that the proxy started and waits for them.
package faultproxy
