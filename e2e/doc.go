// Package e2e drives the built binaries: it starts primary, replica and replctl as processes, breaks the links between
// them, stops, kills and pauses them, and looks at them from outside as a client, an operator or a monitor would.
// Each row of the table in the design ("what happens when …") has a scenario here that asserts the counters of full
// syncs and resumes, not only the data.
//
// The short suite runs with plain go test. With -long the random parts run longer (at least 200 kills) and the largest
// values are written:
//
//	go test ./e2e
//	go test ./e2e -long -timeout 60m
//	go test ./e2e -run KillPrimary -seed 42
//
// # How it is built
//
// TestMain builds the commands once into a temporary directory. A [testing.T] owns every process that it starts: they
// are killed when it ends, and their logs are printed if it failed. A test never waits for a time, except where the
// time is the scenario ("the link is cut for five seconds"); it waits for a condition with a deadline.
package e2e
