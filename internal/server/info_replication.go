package server

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/understudy-kv/understudy/internal/status"
)

// syncCounts are Redis's counters, one a shard session: full syncs, resumes, and handshakes that would rather have
// resumed. A replica's first full sync is none of the last.
func syncCounts(n *status.Node) (full, resumed, wanted uint64) {
	for _, sh := range n.Shards {
		resumed += sh.Resumes
		for reason, count := range sh.FullSyncs {
			full += count
			if reason != "empty" {
				wanted += count
			}
		}
	}
	return full, resumed, wanted
}

// replIDs are two times 40 hex digits: of the shards' generations, and of those before them. end is up to where, in the sum
// of the shards' offsets, the generations before are part of this history; -1 if there are none. Where only some shards
// have changed their generation, the others count with the one that they have, in both.
func replIDs(n *status.Node) (now, before string, end int64) {
	current, previous := sha1.New(), sha1.New()
	var sum uint64
	older := false
	for _, sh := range n.Shards {
		generation, _, _ := strings.Cut(sh.Position, ":")
		past := generation
		first := sh.Offset
		for i, epoch := range sh.Lineage {
			if name, at, _ := strings.Cut(epoch, "@"); name == generation && i > 0 {
				older = true
				past, _, _ = strings.Cut(sh.Lineage[i-1], "@")
				first, _ = strconv.ParseUint(at, 10, 64)
			}
		}
		sum += first
		fmt.Fprintln(current, sh.Shard, generation)
		fmt.Fprintln(previous, sh.Shard, past)
	}
	now = hex.EncodeToString(current.Sum(nil))
	if !older {
		return now, strings.Repeat("0", 2*sha1.Size), -1
	}
	return now, hex.EncodeToString(previous.Sum(nil)), int64(sum) + 1
}

// infoReplication writes Redis's fields, whose offsets are sums over the shards, and then ours, by shard.
func (s *Server) infoReplication(r *report) {
	n := s.backend.Status()
	if n.Role == RoleReplica {
		r.add("role", "slave")
		s.infoLink(r, &n)
	} else {
		r.add("role", "master")
	}
	list := followers(&n)
	r.add("connected_slaves", len(list))
	if good, asked := s.good(); asked {
		r.add("min_slaves_good_slaves", good)
	}
	for i, f := range list {
		host, port := hostPort(f.address)
		r.add(fmt.Sprintf("slave%d", i), fmt.Sprintf("ip=%s,port=%d,state=%s,offset=%d,lag=%d", host, port, f.state, f.applied, int64(f.lag)))
	}
	var oldest, size, held, length uint64
	for _, sh := range n.Shards {
		oldest += sh.Log.Oldest
		size += uint64(sh.Log.MemoryLimit)
		held += uint64(sh.Log.MemoryBytes)
		length += sh.Log.Next - min(sh.Log.Oldest, sh.Log.Next)
	}
	state := status.FailoverNone
	if n.Failover != nil {
		state = n.Failover.State
	}
	r.add("master_failover_state", state)
	if f := n.Failover; f != nil {
		r.add("master_last_failover_hold_ms", fmt.Sprintf("%.1f", f.Hold))
		r.add("master_last_failover_result", oneWord(f.Result))
	}
	now, before, end := replIDs(&n)
	r.add("master_replid", now)
	r.add("master_replid2", before)
	r.add("master_repl_offset", offsets(&n))
	r.add("second_repl_offset", end)
	r.add("repl_backlog_active", 1)
	r.add("repl_backlog_size", size)
	r.add("repl_backlog_first_byte_offset", oldest)
	r.add("repl_backlog_histlen", length)
	r.add("repl_backlog_memory_bytes", held)
	s.infoShards(r, &n)
}

// infoLink is what a replica says of its primary. The link is up when that of every shard is.
func (s *Server) infoLink(r *report, n *status.Node) {
	host, port := s.backend.Following()
	up := "up"
	var io, down float64
	var received uint64
	var sync status.Sync
	syncing := 0
	if len(n.Shards) == 0 {
		up = "down"
	}
	for _, sh := range n.Shards {
		l := sh.Link
		if l == nil {
			up = "down"
			continue
		}
		if l.State != "streaming" {
			up = "down"
		}
		io, down = max(io, l.LastIO), max(down, l.DownFor)
		received += l.Received
		if l.Sync != nil {
			syncing = 1
			sync.Bytes += l.Sync.Bytes
			sync.Total += l.Sync.Total
		}
	}
	r.add("master_host", host)
	r.add("master_port", port)
	r.add("master_link_status", up)
	r.add("master_last_io_seconds_ago", int64(io))
	r.add("master_sync_in_progress", syncing)
	r.add("slave_read_repl_offset", received)
	r.add("slave_repl_offset", offsets(n))
	if syncing == 1 {
		r.add("master_sync_total_bytes", sync.Total)
		r.add("master_sync_read_bytes", sync.Bytes)
		r.add("master_sync_left_bytes", sync.Total-min(sync.Bytes, sync.Total))
		r.add("master_sync_perc", 100*float64(sync.Bytes)/float64(max(sync.Total, 1)))
		r.add("master_sync_last_io_seconds_ago", int64(io))
	}
	if up == "down" {
		r.add("master_link_down_since_seconds", int64(down))
	}
	r.add("slave_priority", 100)
	r.add("slave_read_only", 1)
	r.add("replica_announced", 1)
}

// infoShards writes our own fields: counters by reason, the worst shard's lag, and a line for each shard.
func (s *Server) infoShards(r *report, n *status.Node) {
	ready := 0
	if n.Ready {
		ready = 1
	}
	r.add("repl_ready", ready)
	if n.Error != "" {
		r.add("repl_error", strings.ReplaceAll(n.Error, "\n", "; "))
	}
	r.add("repl_shards", len(n.Shards))
	if len(n.Path) > 0 {
		r.add("repl_path", strings.Join(n.Path, ","))
	}
	full, refusals, resumes, rewinds, unsettled := map[string]uint64{}, map[string]uint64{}, uint64(0), uint64(0), 0
	for _, sh := range n.Shards {
		resumes += sh.Resumes
		rewinds += sh.Rewinds
		if sh.Unsettled {
			unsettled++
		}
		for k, v := range sh.FullSyncs {
			full[k] += v
		}
		for k, v := range sh.Refusals {
			refusals[k] += v
		}
	}
	r.add("repl_resumes", resumes)
	r.add("repl_rewinds", rewinds)
	r.add("repl_unsettled_shards", unsettled)
	mixed := 0
	if n.Mixed {
		mixed = 1
	}
	r.add("repl_mixed", mixed)
	byName(r, "repl_full_syncs_", full)
	byName(r, "repl_refusals_", refusals)
	if f := n.Failover; f != nil {
		r.add("repl_failover_target", f.Target)
	}
	s.infoLag(r, n)
	for _, sh := range n.Shards {
		line := fmt.Sprintf("position=%s,oldest=%d,memory_first=%d,durable=%d,log_bytes=%d,seconds_retained=%.0f",
			sh.Position, sh.Log.Oldest, sh.Log.MemoryFirst, sh.Log.Durable, sh.Log.Bytes, sh.Log.Seconds)
		if l := sh.Link; l != nil {
			line += fmt.Sprintf(",link=%s,primary_offset=%d,lag_mutations=%d,lag_bytes=%d,lag_ms=%.0f,inbox_bytes=%d,last_resync=%s",
				l.State, l.PrimaryOffset, l.LagMutations, l.LagBytes, l.LagMillis, l.InboxBytes, l.LastResync)
			if l.Sync != nil {
				line += fmt.Sprintf(",sync_reason=%s,sync_bytes=%d,sync_total=%d,sync_rate=%.0f,sync_eta=%.0f",
					l.Sync.Reason, l.Sync.Bytes, l.Sync.Total, l.Sync.Rate, l.Sync.ETA)
			}
		}
		r.add(fmt.Sprintf("repl_shard%d", sh.Shard), line)
		if sh.Error != "" {
			r.add(fmt.Sprintf("repl_shard%d_error", sh.Shard), strings.ReplaceAll(sh.Error, "\n", "; "))
		}
	}
}

// infoLag is the lag of the worst shard, never a sum or a difference of maxima (pitfall 36). On a replica it is its own;
// on a primary, that of the worst session. A replica's replicas do not count with it.
func (s *Server) infoLag(r *report, n *status.Node) {
	var mutations uint64
	var bytes int64
	var millis float64
	worst := -1
	note := func(id int, m uint64, b int64) {
		if worst < 0 || m > mutations {
			worst = id
		}
		mutations, bytes = max(mutations, m), max(bytes, b)
	}
	for _, sh := range n.Shards {
		if l := sh.Link; l != nil {
			note(sh.Shard, l.LagMutations, l.LagBytes)
			millis = max(millis, l.LagMillis)
		}
		for _, slot := range sh.Slots {
			if slot.State != "detached" && n.Role != RoleReplica {
				note(sh.Shard, slot.LagMutations, slot.LagBytes)
			}
		}
	}
	if worst < 0 {
		return
	}
	r.add("repl_lag_worst_shard", worst)
	r.add("repl_lag_mutations", mutations)
	r.add("repl_lag_bytes", bytes)
	if n.Role == RoleReplica {
		r.add("repl_lag_ms", int64(millis))
	}
}

// oneWord is a result for a line of INFO: "-" while there is none.
func oneWord(result string) string {
	if result == "" {
		return "-"
	}
	return strings.ReplaceAll(result, "\n", "; ")
}

func byName(r *report, prefix string, counts map[string]uint64) {
	names := make([]string, 0, len(counts))
	for name := range counts {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		r.add(prefix+strings.ReplaceAll(name, "-", "_"), counts[name])
	}
}
