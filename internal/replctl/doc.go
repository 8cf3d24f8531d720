// Package replctl is the body of the program of the same name: it looks at running nodes and at data directories. Only
// surplus replay changes anything: it sends writes to a primary.
//
//	replctl status --primary 127.0.0.1:6380 --replica 127.0.0.1:7380
//	replctl verify --primary 127.0.0.1:6380 --replica 127.0.0.1:7380
//	replctl log DIR --shard 0 --check
//	replctl surplus list --data-dir DIR
//	replctl surplus replay --data-dir DIR --to 127.0.0.1:7380 --dry-run
//	replctl bench --peer redis-server
//
// # Invariants
//
//  1. The exit status tells the outcome: 0 all is well, 1 it is not, 2 bad usage. "Not well" is a node that cannot be
//     reached or reports an error, keyspaces that differ, or a damaged log.
//  2. Results go to standard output; progress and complaints go to standard error, progress only on a terminal.
//  3. A surplus may be replayed any number of times with one result: what is sent are values and absolute deadlines, and
//     of a key the last one last. A key whose deadline has passed is deleted, since it would be gone.
//  4. Deciding what to say is apart from asking the nodes: rows and their order are pure functions of status.Node.
package replctl
