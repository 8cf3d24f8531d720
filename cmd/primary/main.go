// Command primary serves a sharded keyspace over RESP and streams it to replicas. Its flags: primary --help.
package main

import (
	"context"
	"os"

	"github.com/understudy-kv/understudy/internal/server"
)

func main() {
	os.Exit(server.RunPrimary(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
