package bench

import (
	"path/filepath"
	"strconv"
)

// redis is redis-server with its default settings but for persistence, and for the 5 s that it waits for more replicas
// before a full sync: only S6 measures that.
type redis struct {
	label   string
	program string
	flags   []string
}

var prompt = []string{"--repl-diskless-sync-delay", "0"}

func redisMemory(program string) *redis {
	return &redis{memory, program, append([]string{"--appendonly", "no"}, prompt...)}
}

func redisDurable(program string) *redis {
	return &redis{durable, program, append([]string{"--appendonly", "yes", "--appendfsync", "everysec"}, prompt...)}
}

// redisDefault is Redis in memory as it comes.
func redisDefault(program string) *redis {
	return &redis{memory, program, []string{"--appendonly", "no"}}
}

// redisTuned is Redis at its fastest full sync: nothing is waited for, compressed or summed up, and the replica loads from the socket.
func redisTuned(program string) *redis {
	return &redis{tuned, program, []string{"--appendonly", "no", "--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0",
		"--repl-diskless-load", "swapdb", "--rdbcompression", "no", "--rdbchecksum", "no"}}
}

func (r *redis) name() string { return r.label }

func (r *redis) node(dir, name string) (*node, error) {
	n := &node{name: name, dir: filepath.Join(dir, name), program: r.program}
	if err := n.address(0); err != nil {
		return nil, err
	}
	n.args = append([]string{"--port", n.port(), "--bind", host, "--dir", n.dir, "--daemonize", "no", "--save", ""}, r.flags...)
	return n, nil
}

func (r *redis) primary(dir string, _ int) (*node, error) { return r.node(dir, "primary") }

func (r *redis) replica(dir, name string, base, _ int) (*node, error) {
	n, err := r.node(dir, name)
	if err == nil {
		n.args = append(n.args, "--replicaof", host+" "+strconv.Itoa(base))
	}
	return n, err
}
