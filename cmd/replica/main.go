// Command replica mirrors a primary's keyspace and serves it read-only over RESP. Its flags: replica --help.
package main

import (
	"context"
	"os"

	"github.com/understudy-kv/understudy/internal/server"
)

func main() {
	os.Exit(server.RunReplica(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
