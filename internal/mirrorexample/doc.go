// Package mirrorexample shows a whole mirror in one process, as runnable examples: a primary and a replica of package
// primary and package replica, with the built-in keyspace and with a state machine of the program's own. It is a package
// of its own because primary and replica never import each other, not even in tests (internal/lint).
package mirrorexample
