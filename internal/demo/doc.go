// Package demo is the body of the program of the same name: it lets a newcomer see a mirror at work, with nothing but Go
// installed. It starts a primary and a replica as processes of their own, by executing its own binary again, puts a
// fault proxy between them, and tells in plain words and figures what happens when the link is cut and when the replica
// is killed.
//
// # Invariants
//
//  1. The processes are the real programs: the same bodies, flags and ports as cmd/primary and cmd/replica.
//  2. Every figure is read from the processes' own REPL.STATUS, or from what the writer was answered. None is computed
//     from what ought to have happened.
//  3. No process outlives the demo: each child ends when its standard input does, even if the demo is killed.
//  4. The exit status is 0 only if verify found the two keyspaces identical.
package demo
