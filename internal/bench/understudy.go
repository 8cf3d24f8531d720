package bench

import (
	"net"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/understudy-kv/understudy/internal/units"
)

// understudy is this project's programs, with their default settings: --fsync everysec, and as many shards as cores.
type understudy struct {
	label   string
	bin     string
	flags   []string
	memory  units.Bytes
	profile func(node string) string // file for a CPU profile, or ""
}

func (u *understudy) name() string { return u.label }

func (u *understudy) node(dir, name, program string, shards int) (*node, error) {
	n := &node{name: name, dir: filepath.Join(dir, name), program: filepath.Join(u.bin, program), announce: true}
	if err := n.address(shards); err != nil {
		return nil, err
	}
	n.args = []string{"--data-dir", n.dir, "--listen", n.addr, "--replication-port-base", strconv.Itoa(n.base)}
	if u.memory > 0 {
		n.args = append(n.args, "--memory", u.memory.String())
	}
	if u.profile != nil {
		if file := u.profile(name); file != "" {
			n.args = append(n.args, "--cpu-profile", file)
			n.profile = true
		}
	}
	n.args = append(n.args, u.flags...)
	return n, nil
}

// defaultShards is what a primary takes when it is told nothing.
func defaultShards() int { return runtime.NumCPU() }

func (u *understudy) primary(dir string, shards int) (*node, error) {
	if shards == 0 {
		shards = defaultShards()
	}
	n, err := u.node(dir, "primary", "primary", shards)
	if err == nil {
		n.args = append(n.args, "--shards", strconv.Itoa(shards))
	}
	return n, err
}

func (u *understudy) replica(dir, name string, base, shards int) (*node, error) {
	if shards == 0 {
		shards = defaultShards()
	}
	n, err := u.node(dir, name, "replica", shards)
	if err == nil {
		n.args = append(n.args, "--primary", net.JoinHostPort(host, strconv.Itoa(base)))
	}
	return n, err
}
