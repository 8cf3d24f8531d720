package replctl

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/understudy-kv/understudy/internal/status"
	"github.com/understudy-kv/understudy/internal/units"
)

// row is a line of a table and how bad it is: rows are sorted by rank, then by how far behind they are, then by shard.
type row struct {
	rank  int     // higher is worse
	lag   float64 // milliseconds for a link, bytes for a slot
	more  uint64  // mutations
	shard int
	cells []string
}

func sortWorstFirst(rows []row) {
	slices.SortStableFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(b.rank, a.rank), cmp.Compare(b.lag, a.lag), cmp.Compare(b.more, a.more), cmp.Compare(a.shard, b.shard))
	})
}

// The ranks, from good to bad.
const (
	rankGood = iota
	rankSyncing
	rankAway
	rankFailed
)

var (
	primaryHeader = []string{"SHARD", "OFFSET", "BACKLOG FROM", "BACKLOG", "REACHES BACK", "WRITES", "REPLICA", "STATE", "BEHIND", "BYTES", "LOST IN"}
	replicaHeader = []string{"SHARD", "OFFSET", "PRIMARY'S", "BEHIND", "BYTES", "LAG", "STATE", "DURABLE", "INBOX", "REWINDS", "LAST RESYNC", "NOTE"}
)

// primaryRows makes one row for each shard and slot, and one for a shard without slots.
func primaryRows(n status.Node) (rows []row) {
	for _, s := range n.Shards {
		base := []string{number(s.Shard), number(s.Offset), number(s.Log.Oldest), units.Human(float64(s.Log.Bytes)), seconds(s.Log.Seconds, "all"), units.Human(s.Log.WriteRate) + "/s"}
		rank := rankGood
		if s.Error != "" {
			rank = rankFailed
		}
		if len(s.Slots) == 0 {
			rows = append(rows, row{rank: rank, shard: s.Shard, cells: append(base, "none", "-", "-", "-", "-")})
		}
		for _, slot := range s.Slots {
			slotRank := rankGood
			switch slot.State {
			case "syncing":
				slotRank = rankSyncing
			case "detached":
				slotRank = rankAway
			}
			rows = append(rows, row{
				rank: max(rank, slotRank), lag: float64(slot.LagBytes), more: slot.LagMutations, shard: s.Shard,
				cells: append(slices.Clone(base), short(slot.Replica), slotState(slot), number(slot.LagMutations), units.Human(float64(slot.LagBytes)), seconds(slot.SecondsLeft, "never")),
			})
		}
	}
	sortWorstFirst(rows)
	return rows
}

func slotState(s status.Slot) string {
	switch {
	case s.State == "detached":
		return fmt.Sprintf("detached %s, reaped in %s", seconds(s.DetachedFor, "-"), seconds(s.ReapedIn, "-"))
	case s.Sync != nil:
		return s.State + " " + progress(*s.Sync)
	}
	return s.State
}

func replicaRows(n status.Node) (rows []row) {
	for _, s := range n.Shards {
		r := row{shard: s.Shard, cells: []string{number(s.Shard), number(s.Offset)}}
		l := s.Link
		if l == nil {
			r.rank = rankFailed
			r.cells = append(r.cells, "-", "-", "-", "-", "no link", "-", "-", number(s.Rewinds), "-", note(s, status.Link{}))
			rows = append(rows, r)
			continue
		}
		state := l.State
		switch {
		case s.Error != "" || l.State == "stopped":
			r.rank = rankFailed
		case l.Sync != nil:
			r.rank, state = rankSyncing, state+" "+progress(*l.Sync)
		case l.State != "streaming":
			r.rank, state = rankAway, fmt.Sprintf("%s, down %s", state, seconds(l.DownFor, "-"))
		}
		if s.Unsettled {
			r.rank, state = max(r.rank, rankSyncing), state+", unsettled"
		}
		r.lag, r.more = l.LagMillis, l.LagMutations
		r.cells = append(r.cells, number(l.PrimaryOffset), number(l.LagMutations), units.Human(float64(l.LagBytes)), millis(l.LagMillis), state,
			number(l.Durable), units.Human(float64(l.InboxBytes)), number(s.Rewinds), orDash(l.LastResync), note(s, *l))
		rows = append(rows, r)
	}
	sortWorstFirst(rows)
	return rows
}

// note is the most telling of what a link says about its troubles.
func note(s status.Shard, l status.Link) string {
	stale := ""
	if l.Stale {
		stale = "stale: "
	}
	switch {
	case s.Error != "":
		return stale + s.Error
	case l.State == "streaming":
		return orDash(stale)
	case l.LastRefusal != "":
		return stale + "refused: " + l.LastRefusal
	case l.LastError != "":
		return stale + l.LastError
	}
	return orDash(stale)
}

func progress(s status.Sync) string {
	percent := 100.0
	if s.Total > 0 {
		percent = 100 * float64(s.Bytes) / float64(s.Total)
	}
	return fmt.Sprintf("%.0f %% of %s, %s left", percent, units.Human(float64(s.Total)), seconds(s.ETA, "unknown time"))
}

func (r report) print(out output) error {
	for _, a := range []*answer{r.Primary, r.Replica} {
		if a == nil || a.Node == nil {
			continue
		}
		if err := a.print(out.stdout); err != nil {
			return err
		}
		fmt.Fprintln(out.stdout)
	}
	return nil
}

// print prints a node by what it is: its links if it follows, and its slots if it is a primary or others follow it.
func (a *answer) print(w io.Writer) error {
	n := *a.Node
	fmt.Fprintln(w, headline(a.Address, n))
	for _, line := range aside(n) {
		fmt.Fprintln(w, "  "+line)
	}
	if n.Role == "replica" {
		if err := table(w, replicaHeader, replicaRows(n)); err != nil {
			return err
		}
		if n = serving(n); len(n.Shards) == 0 {
			return nil
		}
		fmt.Fprintf(w, "  replicas of this replica:\n")
	}
	return table(w, primaryHeader, primaryRows(n))
}

// serving is the node with no shards but those that others follow.
func serving(n status.Node) status.Node {
	n.Shards = slices.DeleteFunc(slices.Clone(n.Shards), func(s status.Shard) bool { return len(s.Slots) == 0 })
	return n
}

func headline(addr string, n status.Node) string {
	parts := []string{"ready", "up " + seconds(n.Uptime, "-")}
	if !n.Ready {
		parts[0] = "NOT READY"
	}
	if n.Role == "replica" {
		parts = append(parts, fmt.Sprintf("follows %s as %s", orDash(n.Primary), n.Replica))
	}
	if n.Replication != "" {
		parts = append(parts, "replication "+n.Replication)
	}
	return fmt.Sprintf("%s %s: %s, %d shards, version %s", n.Role, addr, strings.Join(parts, ", "), len(n.Shards), n.Version)
}

// aside is what there is to say of a node's place and of handovers: lines of their own, where there is anything.
func aside(n status.Node) (lines []string) {
	if len(n.Path) > 1 {
		ids := make([]string, len(n.Path))
		for i, id := range n.Path {
			ids[i] = short(id)
		}
		lines = append(lines, "chain: "+strings.Join(ids, " > "))
	}
	if f := n.Failover; f != nil && (f.Target != "" || f.State != status.FailoverNone) {
		what := "last handover, to " + f.Target
		if f.State != status.FailoverNone {
			what = "HANDOVER to " + f.Target + ", " + f.State
		}
		if f.Result != "" {
			what += ": " + f.Result
		}
		lines = append(lines, what+"; writes held for "+millis(f.Hold))
	}
	return lines
}

func table(w io.Writer, header []string, rows []row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(cells []string) {
		fmt.Fprint(t, "  ")
		for i, c := range cells {
			if i == len(cells)-1 {
				fmt.Fprint(t, c)
			} else {
				fmt.Fprint(t, c, "\t")
			}
		}
		fmt.Fprintln(t)
	}
	line(header)
	for _, r := range rows {
		line(r.cells)
	}
	return t.Flush()
}

func number[T int | uint64](n T) string { return fmt.Sprint(n) }

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// short shortens a UUID to its first group, which tells a handful of replicas apart.
func short(id string) string { return id[:min(8, len(id))] }

// seconds writes a time for people; negative means what the status calls not known or never.
func seconds(s float64, negative string) string {
	if s < 0 {
		return negative
	}
	d := time.Duration(s * float64(time.Second))
	switch {
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d < 100*time.Hour:
		return d.Round(time.Second).String()
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

func millis(ms float64) string {
	if ms < 1000 {
		return fmt.Sprintf("%.1fms", ms)
	}
	return seconds(ms/1000, "-")
}
