// Command replctl looks at the replication of running nodes, and at their data directories: replctl --help.
package main

import (
	"context"
	"os"

	"github.com/understudy-kv/understudy/internal/replctl"
)

func main() {
	os.Exit(replctl.Run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
