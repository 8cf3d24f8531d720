package replctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/understudy-kv/understudy/internal/cli"
	"github.com/understudy-kv/understudy/internal/client"
	"github.com/understudy-kv/understudy/internal/status"
)

// askTimeout is how long a node may take to answer.
const askTimeout = 10 * time.Second

type statusCommand struct {
	Primary string `help:"RESP address of the primary, or with --replica of the replica that it follows." placeholder:"HOST:PORT"`
	Replica string `help:"RESP address of the replica." placeholder:"HOST:PORT"`
	JSON    bool   `help:"Print what the nodes told, as JSON, instead of tables." name:"json"`
}

// Validate is called by the parser.
func (c *statusCommand) Validate() error {
	if c.Primary == "" && c.Replica == "" {
		return errors.New("give --primary, --replica or both, such as --primary 127.0.0.1:6380")
	}
	return nil
}

// report is what status --json prints. A node that was not asked for is left out; one that could not be asked is there
// with its error.
type report struct {
	Primary *answer `json:"primary,omitempty"`
	Replica *answer `json:"replica,omitempty"`
}

type answer struct {
	Address string       `json:"address"`
	Error   string       `json:"error,omitempty"`
	Node    *status.Node `json:"node,omitempty"`
}

func ask(ctx context.Context, addr string) *answer {
	if addr == "" {
		return nil
	}
	a := &answer{Address: addr}
	n, err := askNode(ctx, addr)
	if err != nil {
		a.Error = err.Error()
		return a
	}
	a.Node = &n
	return a
}

func askNode(ctx context.Context, addr string) (status.Node, error) {
	c, err := client.Dial(ctx, addr)
	if err != nil {
		return status.Node{}, err
	}
	defer c.Close()
	c.SetTimeout(askTimeout)
	return c.Status()
}

func (c *statusCommand) run(ctx context.Context, out output) int {
	r := report{Primary: ask(ctx, c.Primary), Replica: ask(ctx, c.Replica)}
	if c.JSON {
		e := json.NewEncoder(out.stdout)
		e.SetIndent("", "  ")
		if err := e.Encode(r); err != nil {
			return out.complain("%v", err)
		}
	} else if err := r.print(out); err != nil {
		return out.complain("%v", err)
	}
	faults := append(r.Primary.faults(r.above()), r.Replica.faults("replica")...)
	for _, f := range faults {
		out.complain("%s", f)
	}
	if len(faults) > 0 {
		return cli.Failed
	}
	return cli.Clean
}

// above is the role that the node at --primary should have. A replica is in order there when the other one follows it.
func (r report) above() string {
	if r.Primary == nil || r.Replica == nil || r.Primary.Node == nil || r.Replica.Node == nil || r.Primary.Node.ID == "" {
		return "primary"
	}
	if path, above := r.Replica.Node.Path, r.Primary.Node; above.ID != r.Replica.Node.ID && slices.Contains(path, above.ID) {
		return above.Role
	}
	return "primary"
}

// faults lists what is wrong with a node: that it could not be asked, and the errors that it tells about itself.
func (a *answer) faults(role string) (faults []string) {
	if a == nil {
		return nil
	}
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Sprintf("%s %s: %s", role, a.Address, fmt.Sprintf(format, args...)))
	}
	if a.Error != "" {
		fault("%s", strings.TrimPrefix(a.Error, a.Address+": "))
		return faults
	}
	if a.Node.Role != role {
		fault("it is a %s; swap the two addresses, or ask the right one", a.Node.Role)
	}
	if a.Node.Error != "" {
		fault("%s", a.Node.Error)
	}
	for _, s := range a.Node.Shards {
		if s.Error != "" {
			fault("shard %d: %s", s.Shard, s.Error)
		}
	}
	return faults
}
