// Package bench is replctl bench: it measures this project's programs and, beside them, another pair of programs, on the
// same machine in the same run.
//
//	replctl bench --peer redis-server                          # every scenario, five times, alternately
//	replctl bench --peer redis-server --scenario S1,S4 --runs 3
//	replctl bench --against ../old/bin --scenario S1           # two builds of the project
//
// A scenario (a file s*.go each) measures one system once: it starts a primary and its replicas in a directory of their own,
// loads them, measures, proves that the data is where it should be, and ends the processes. The runner does so for each
// system in turn, run after run, so that what else the machine does meets all of them.
//
// # Invariants
//
//  1. Only ratios of one run count: a ratio's two figures were measured one after the other. What is printed is their median.
//  2. A figure is kept only if its system proved to hold the data: as many keys on every node, and samples that agree.
//     What could not be measured, or was wrong, is told as such, and the exit status is 1.
//  3. Replicated means applied by every replica: the clock runs until then.
//  4. Every process that a run started is ended by it, whatever happens; and all that waits, waits with a limit.
//  5. Figures, ratios, medians and tables are pure functions (figures.go, verdict.go, table.go).
package bench
