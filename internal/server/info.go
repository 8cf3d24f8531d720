package server

import (
	"fmt"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"
)

// report is the text of INFO in the making.
type report struct{ strings.Builder }

func (r *report) section(name string) {
	if r.Len() > 0 {
		r.WriteString("\r\n")
	}
	r.WriteString("# " + name + "\r\n")
}

func (r *report) add(name string, value any) {
	if f, ok := value.(float64); ok {
		value = fmt.Sprintf("%.2f", f)
	}
	fmt.Fprintf(r, "%s:%v\r\n", name, value)
}

// sections are INFO's, in Redis's order. All of them are in "default", "all" and "everything".
var sections = []struct {
	name  string
	write func(*Server, *report)
}{
	{"Server", (*Server).infoServer},
	{"Clients", (*Server).infoClients},
	{"Memory", (*Server).infoMemory},
	{"Persistence", (*Server).infoPersistence},
	{"Stats", (*Server).infoStats},
	{"Replication", (*Server).infoReplication},
	{"CPU", (*Server).infoCPU},
	{"Errorstats", (*Server).infoErrorstats},
	{"Cluster", (*Server).infoCluster},
	{"Keyspace", (*Server).infoKeyspace},
}

// info is INFO [section ...].
func info(c *call) {
	var r report
	for _, s := range sections {
		wanted := len(c.args) == 1
		for i := 1; i < len(c.args); i++ {
			wanted = wanted || c.is(i, s.name) || c.is(i, "default") || c.is(i, "all") || c.is(i, "everything")
		}
		if wanted {
			r.section(s.name)
			s.write(c.s, &r)
		}
	}
	c.w.Verbatim("txt", r.String())
}

func (s *Server) infoServer(r *report) {
	n := s.backend.Status()
	_, port := hostPort(n.Listen)
	up := time.Since(s.started)
	now := time.Now()
	executable, _ := os.Executable()
	r.add("redis_version", redisVersion)
	r.add("redis_mode", "standalone")
	r.add("os", runtime.GOOS+" "+runtime.GOARCH)
	r.add("arch_bits", 32<<(^uint(0)>>63))
	r.add("multiplexing_api", "go")
	r.add("process_id", os.Getpid())
	r.add("process_supervised", "no")
	r.add("run_id", s.runID)
	r.add("tcp_port", port)
	r.add("server_time_usec", now.UnixMicro())
	r.add("uptime_in_seconds", int64(up.Seconds()))
	r.add("uptime_in_days", int64(up.Hours()/24))
	r.add("hz", 10)
	r.add("configured_hz", 10)
	r.add("lru_clock", now.Unix()&(1<<24-1))
	r.add("executable", executable)
	r.add("config_file", "")
	r.add("repl_version", s.o.Version)
	r.add("repl_go_version", runtime.Version())
	r.add("repl_goroutines", runtime.NumGoroutine())
	r.add("repl_node_id", n.ID)
}

func (s *Server) infoClients(r *report) {
	clients := s.clients.all()
	blocked := 0
	for _, c := range clients {
		if c.waiting.Load() {
			blocked++
		}
	}
	r.add("connected_clients", len(clients))
	r.add("cluster_connections", 0)
	r.add("maxclients", s.maxClients.Load())
	r.add("blocked_clients", blocked)
	r.add("tracking_clients", 0)
	r.add("clients_in_timeout_table", 0)
}

func (s *Server) infoMemory(r *report) {
	used, rss := usedMemory(), residentMemory()
	_, _, _, peak := s.rates.get()
	clients := int64(0)
	s.clients.each(func(c *conn) { clients += c.memory.Load() })
	n := s.backend.Status()
	backlog := int64(0)
	for _, sh := range n.Shards {
		backlog += sh.Log.MemoryBytes
	}
	both := func(name string, v uint64) {
		r.add(name, v)
		r.add(name+"_human", human(v))
	}
	both("used_memory", used)
	both("used_memory_rss", rss)
	both("used_memory_peak", peak)
	r.add("used_memory_peak_perc", fmt.Sprintf("%.2f%%", 100*float64(used)/float64(max(peak, 1))))
	both("total_system_memory", systemMemory())
	both("maxmemory", 0)
	r.add("maxmemory_policy", "noeviction")
	r.add("mem_fragmentation_ratio", float64(rss)/float64(max(used, 1)))
	r.add("mem_replication_backlog", backlog)
	r.add("mem_clients_slaves", 0)
	r.add("mem_clients_normal", clients)
	r.add("mem_allocator", "go")
	r.add("repl_memory_live", liveMemory())
	r.add("repl_memory_limit", debug.SetMemoryLimit(-1))
}

func (s *Server) infoPersistence(r *report) {
	shards := s.ks.Shards()
	loading, status := 0, "ok"
	if len(shards) == 0 {
		loading = 1
	}
	pending := uint64(0)
	for _, sh := range shards {
		if sh.Err() != nil {
			status = "err"
		}
		pending += sh.Position().Offset - min(sh.Durable(), sh.Position().Offset)
	}
	r.add("loading", loading)
	r.add("async_loading", 0)
	r.add("rdb_changes_since_last_save", pending) // mutations that a power loss could take
	r.add("rdb_bgsave_in_progress", 0)
	r.add("rdb_last_bgsave_status", "ok")
	r.add("aof_enabled", 1)
	r.add("aof_rewrite_in_progress", 0)
	r.add("aof_last_bgrewrite_status", "ok")
	r.add("aof_last_write_status", status)
}

func (s *Server) infoStats(r *report) {
	perSecond, in, out, _ := s.rates.get()
	n := s.backend.Status()
	full, resumed, refused := syncCounts(&n)
	k := &s.ks.Stats
	hits, misses := s.ks.Lookups()
	r.add("total_connections_received", s.stats.connections.Load())
	r.add("total_commands_processed", k.Commands.Load())
	r.add("instantaneous_ops_per_sec", int64(perSecond))
	r.add("total_net_input_bytes", s.stats.netIn.Load())
	r.add("total_net_output_bytes", s.stats.netOut.Load())
	r.add("instantaneous_input_kbps", in)
	r.add("instantaneous_output_kbps", out)
	r.add("rejected_connections", s.stats.rejected.Load())
	r.add("sync_full", full)
	r.add("sync_partial_ok", resumed)
	r.add("sync_partial_err", refused)
	r.add("expired_keys", k.Expired.Load())
	r.add("evicted_keys", 0)
	r.add("evicted_clients", 0)
	r.add("keyspace_hits", hits)
	r.add("keyspace_misses", misses)
	r.add("pubsub_channels", 0)
	r.add("pubsub_patterns", 0)
	r.add("latest_fork_usec", 0)
	r.add("total_forks", 0)
	r.add("total_error_replies", k.Errors.Load())
	r.add("repl_transactions_aborted", k.Aborted.Load())
	r.add("repl_exclusive_sections", k.Exclusives.Load())
}

func (s *Server) infoCPU(r *report) {
	var u syscall.Rusage
	seconds := func(t syscall.Timeval) string { return fmt.Sprintf("%d.%06d", t.Sec, t.Usec) }
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) == nil {
		r.add("used_cpu_sys", seconds(u.Stime))
		r.add("used_cpu_user", seconds(u.Utime))
	}
	r.add("used_cpu_sys_children", "0.000000")
	r.add("used_cpu_user_children", "0.000000")
}

func (s *Server) infoErrorstats(r *report) {
	codes := s.ks.ErrorCodes()
	for _, code := range slices.Sorted(maps.Keys(codes)) {
		r.add("errorstat_"+code, fmt.Sprintf("count=%d", codes[code]))
	}
}

func (s *Server) infoCluster(r *report) { r.add("cluster_enabled", 0) }

func (s *Server) infoKeyspace(r *report) {
	if len(s.ks.Shards()) == 0 {
		return
	}
	c, age, ok := s.keys.get(&s.done, s.ks.Count)
	if !ok {
		return // the shards are being replaced
	}
	if c.Keys+c.Expired > 0 {
		r.add("db0", fmt.Sprintf("keys=%d,expires=%d,avg_ttl=0", c.Keys, c.Deadlines))
	}
	r.add("repl_hidden_expired_keys", c.Expired) // past their deadline, and the primary's delete has not come yet
	r.add("repl_keys_counted_seconds_ago", int64(age/time.Second))
}

// human writes bytes as Redis does: 1.35M.
func human(n uint64) string {
	v, unit := float64(n), 0
	for ; v >= 1024 && unit < 4; unit++ {
		v /= 1024
	}
	if unit == 0 {
		return fmt.Sprintf("%dB", n)
	}
	return fmt.Sprintf("%.2f%c", v, "BKMGT"[unit])
}
