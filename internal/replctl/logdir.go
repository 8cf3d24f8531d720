package replctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/safefile"
	"github.com/understudy-kv/understudy/internal/store"
)

// logDir is one shard's log on disk.
type logDir struct {
	shard     int
	dir       string
	powerLost bool // the machine has stopped since the log was written, without a clean stop
}

// findLogs finds the logs of a data directory, of a shard's directory, or of a directory with segments.
func findLogs(dir string, only *int) ([]logDir, error) {
	if info, err := os.Stat(dir); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s is a file; give the data directory of a node", dir)
	}
	logs, err := logsIn(dir)
	if err != nil {
		return nil, err
	}
	if len(logs) == 0 {
		return nil, fmt.Errorf("%s holds no log; give the data directory of a node (it has a node.json), a shard's directory in it, or one with segments (*.seg)", dir)
	}
	if only == nil {
		return logs, nil
	}
	i := slices.IndexFunc(logs, func(l logDir) bool { return l.shard == *only })
	if i < 0 {
		return nil, fmt.Errorf("%s has no shard %d; it has %d shards, from 0", dir, *only, len(logs))
	}
	return logs[i : i+1], nil
}

func logsIn(dir string) ([]logDir, error) {
	if segments, err := filepath.Glob(filepath.Join(dir, "*.seg")); err != nil || len(segments) > 0 {
		return []logDir{{shard: shardOf(dir), dir: dir}}, err
	}
	l, err := logOfShard(dir)
	if err == nil {
		return []logDir{l}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var node struct {
		Dataset int `json:"dataset"`
	}
	b, err := safefile.Read(vfs.Default, dir, "node.json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &node)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	shards, err := filepath.Glob(filepath.Join(dir, fmt.Sprintf("data-%d", node.Dataset), "shard-*"))
	if err != nil {
		return nil, err
	}
	var logs []logDir
	for _, s := range shards {
		l, err := logOfShard(s)
		if err != nil {
			return nil, err
		}
		logs = append(logs, l)
	}
	return logs, nil
}

func logOfShard(dir string) (logDir, error) {
	var m struct {
		Shard   int    `json:"shard"`
		Log     string `json:"log"`
		BootID  string `json:"boot_id"`
		Clean   bool   `json:"clean"`
		Weakest string `json:"weakest"`
	}
	b, err := safefile.Read(vfs.Default, dir, "MANIFEST")
	if err != nil {
		return logDir{}, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return logDir{}, fmt.Errorf("%s: %w", filepath.Join(dir, "MANIFEST"), err)
	}
	boot, err := store.BootID()
	if err != nil {
		return logDir{}, err
	}
	return logDir{shard: m.Shard, dir: filepath.Join(dir, m.Log), powerLost: !m.Clean && m.BootID != boot && m.Weakest != "always"}, nil
}

// shardOf takes the shard of a directory with segments from the shard's directory around it.
func shardOf(dir string) int {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimPrefix(filepath.Base(filepath.Dir(abs)), "shard-"))
	return n
}
