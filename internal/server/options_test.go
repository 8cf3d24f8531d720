package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/understudy-kv/understudy/internal/cli"
	"github.com/understudy-kv/understudy/internal/version"
)

// setting is one flag with four values that can be told apart: its default, and one for each place it can come from.
type setting struct {
	flag             string
	def              any
	file, env, given string
	want             [3]any // from the file, the environment, the flag
	primary, replica bool
}

func ref(n int) *int { return &n }

var settings = []setting{
	{"data-dir", nil, "f", "e", "g", [3]any{"f", "e", "g"}, true, true},
	{"listen", nil, "127.0.0.1:1", "127.0.0.1:2", "[::1]:3", [3]any{"127.0.0.1:1", "127.0.0.1:2", "[::1]:3"}, true, true},
	{"fsync", "everysec", "no", "always", "no", [3]any{"no", "always", "no"}, true, true},
	{"backlog-memory", "16MiB", "1MiB", "2mb", "3145728", [3]any{"1MiB", "2MiB", "3MiB"}, true, true},
	{"backlog-keep", "128MiB", "1MiB", "2mb", "0", [3]any{"1MiB", "2MiB", "0"}, true, true},
	{"backlog-disk", "2GiB", "3GiB", "4gb", "5GiB", [3]any{"3GiB", "4GiB", "5GiB"}, true, true},
	{"memory", "512MiB", "33MiB", "34MiB", "35MiB", [3]any{"33MiB", "34MiB", "35MiB"}, true, true},
	{"background-cpu", 0.0, "0.5", "1", "2.25", [3]any{0.5, 1.0, 2.25}, true, true},
	{"cluster-name", "", "f", "e", "g", [3]any{"f", "e", "g"}, true, true},
	{"log-level", "info", "debug", "warn", "error", [3]any{"debug", "warn", "error"}, true, true},
	{"log-format", "text", "json", "text", "json", [3]any{"json", "text", "json"}, true, true},
	{"cpu-profile", "", "f", "e", "g", [3]any{"f", "e", "g"}, true, true},
	{"shards", (*int)(nil), "1", "2", "256", [3]any{ref(1), ref(2), ref(256)}, true, false},
	{"replication-listen", "", "::1", "10.0.0.1", "h", [3]any{"::1", "10.0.0.1", "h"}, true, true},
	{"replication-port-base", (*int)(nil), "1000", "2000", "65535", [3]any{ref(1000), ref(2000), ref(65535)}, true, true},
	{"reconnect-window", time.Minute, "1m30s", "0s", "2h", [3]any{90 * time.Second, time.Duration(0), 2 * time.Hour}, true, true},
	{"max-replicas", 64, "1", "2", "3", [3]any{1, 2, 3}, true, true},
	{"min-replicas-to-write", 0, "1", "2", "3", [3]any{1, 2, 3}, true, true},
	{"min-replicas-max-lag", 10 * time.Second, "1s", "2s", "1m", [3]any{time.Second, 2 * time.Second, time.Minute}, true, true},
	{"replica-max-staleness", time.Duration(0), "1s", "250ms", "0s", [3]any{time.Second, 250 * time.Millisecond, time.Duration(0)}, true, true},
	{"announce-host", "", "a", "b", "::1", [3]any{"a", "b", "::1"}, true, true},
	{"announce-port-base", 0, "1", "2", "65535", [3]any{1, 2, 65535}, true, true},
	{"primary", "needed:1", "f:1", "e:2", "[::1]:3", [3]any{"f:1", "e:2", "[::1]:3"}, false, true},
	{"replica-id", "", "123e4567-e89b-12d3-a456-426614174000", "223e4567e89b12d3a456426614174000", "323e4567-e89b-12d3-a456-426614174000", [3]any{"123e4567-e89b-12d3-a456-426614174000", "223e4567e89b12d3a456426614174000", "323e4567-e89b-12d3-a456-426614174000"}, true, true},
	{"inbox-bytes", "32MiB", "1MiB", "2MiB", "3MiB", [3]any{"1MiB", "2MiB", "3MiB"}, true, true},
	{"serve-stale", true, "false", "true", "false", [3]any{false, true, false}, true, true},
	{"accept-empty-primary", false, "true", "false", "true", [3]any{true, false, true}, true, true},
	{"keep-previous", true, "false", "true", "false", [3]any{false, true, false}, true, true},
	{"surplus-limit", "64MiB", "1MiB", "2MiB", "0", [3]any{"1MiB", "2MiB", "0"}, true, true},
	{"sync-rate", "0", "1MiB", "2MiB", "0", [3]any{"1MiB", "2MiB", "0"}, true, true},
}

// value finds the option of a flag by its name.
func value(o any, flag string) any {
	v := reflect.ValueOf(o).Elem().FieldByNameFunc(func(name string) bool {
		return strings.EqualFold(name, strings.ReplaceAll(flag, "-", ""))
	})
	if s, ok := v.Interface().(fmt.Stringer); ok && v.Type().Name() == "Bytes" {
		return s.String()
	}
	return v.Interface()
}

func parseValue(replica bool, flag string, args ...string) (any, error) {
	if replica {
		var o ReplicaOptions
		err := replicaProgram.parse(&o, args, io.Discard, io.Discard)
		return value(&o, flag), err
	}
	var o PrimaryOptions
	err := primaryProgram.parse(&o, args, io.Discard, io.Discard)
	return value(&o, flag), err
}

func writeConfig(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "settings.toml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFlagsRankAboveEnvironmentAboveFileAboveDefaults(t *testing.T) {
	defaults := map[bool]map[string]any{
		false: {"data-dir": "primary-data", "listen": "127.0.0.1:6380"},
		true:  {"data-dir": "replica-data", "listen": "127.0.0.1:7380"},
	}
	for _, s := range settings {
		for _, replica := range []bool{false, true} {
			if replica && !s.replica || !replica && !s.primary {
				continue
			}
			t.Run(fmt.Sprintf("%s/replica=%t", s.flag, replica), func(t *testing.T) {
				env := "UNDERSTUDY_" + strings.ToUpper(strings.ReplaceAll(s.flag, "-", "_"))
				check := func(from string, want any, args ...string) {
					t.Helper()
					if replica && (s.flag != "primary" || from == "default") {
						args = append(args, "--primary", "needed:1")
					}
					if got, err := parseValue(replica, s.flag, args...); err != nil || !reflect.DeepEqual(got, want) {
						t.Errorf("%s: %v, %v, want %v", from, got, err, want)
					}
				}
				def := s.def
				if def == nil {
					def = defaults[replica][s.flag]
				}
				check("default", def)
				quoted := fmt.Sprintf("%s = %q\n", s.flag, s.file)
				path := writeConfig(t, quoted)
				check("file", s.want[0], "--config", path)
				if s.file == "true" || s.file == "false" || s.flag == "shards" || s.flag == "max-replicas" {
					check("plain value in the file", s.want[0], "--config", writeConfig(t, fmt.Sprintf("%s = %s\n", s.flag, s.file)))
				}
				t.Setenv(env, s.env)
				check("environment", s.want[1])
				check("environment over file", s.want[1], "--config", path)
				check("flag", s.want[2], "--config", path, "--"+s.flag+"="+s.given)
				t.Setenv("UNDERSTUDY_CONFIG", path)
				os.Unsetenv(env)
				check("file named by the environment", s.want[0])
			})
		}
	}
}

// Every flag is in the table above, so that none is added without its order being tested.
func TestEveryFlagIsInTheTable(t *testing.T) {
	known := map[string]bool{"config": true, "version": true}
	for _, s := range settings {
		known[s.flag] = true
	}
	for _, o := range []any{PrimaryOptions{}, ReplicaOptions{}} {
		for _, f := range reflect.VisibleFields(reflect.TypeOf(o)) {
			if f.Anonymous {
				continue
			}
			found := false
			for flag := range known {
				found = found || strings.EqualFold(strings.ReplaceAll(flag, "-", ""), f.Name)
			}
			if !found {
				t.Errorf("%T.%s is not in the table of settings", o, f.Name)
			}
		}
	}
}

func TestFaultsNameTheValueAndTheWayOut(t *testing.T) {
	for _, c := range []struct {
		args string
		want []string
	}{
		{"--shards 0", []string{"--shards: 0 is not within 1 and 256"}},
		{"--shards 257", []string{"--shards: 257 is not within 1 and 256"}},
		{"--shards many", []string{"--shards", `"many"`}},
		{"--listen 127.0.0.1:60000 --shards 2", []string{"2 shards need the ports 70000-70001", "ports end at 65535", "at most 65534"}},
		{"--replication-port-base 65533 --shards 4", []string{"4 shards need the ports 65533-65536", "at most 65532"}},
		{"--listen 127.0.0.1:60000", []string{"need the ports 70000-70000", "ports end at 65535"}},
		{"--replication-port-base 0", []string{"--replication-port-base: 0 is not a port"}},
		{"--replication-port-base 6378 --shards 4", []string{"4 shards need the ports 6378-6381", "--listen has 6380"}},
		{"--replication-listen 127.0.0.1:16380", []string{`"127.0.0.1:16380" has a port`, "--replication-port-base"}},
		{"--announce-host db1:16380", []string{`"db1:16380" has a port`, "--announce-port-base"}},
		{"--announce-port-base 70000", []string{"--announce-port-base: 70000 is not a port"}},
		{"replica --primary h:1 --listen 127.0.0.1:60000", []string{"need the ports 70000-70000", "ports end at 65535"}},
		{"--min-replicas-to-write=-1", []string{"--min-replicas-to-write: -1"}},
		{"--min-replicas-max-lag 1500ms", []string{"--min-replicas-max-lag: 1.5s; give whole seconds"}},
		{"--replica-max-staleness=-1s", []string{"--replica-max-staleness: -1s is negative"}},
		{"--reconnect-window=-1s", []string{"--reconnect-window: -1s is negative"}},
		{"--reconnect-window 60", []string{"--reconnect-window", `"60"`}},
		{"--max-replicas 0", []string{"--max-replicas: 0"}},
		{"--data-dir=", []string{"--data-dir is empty"}},
		{"--listen nowhere", []string{`--listen: "nowhere" is not host:port`}},
		{"--listen 127.0.0.1:70000", []string{`--listen: "127.0.0.1:70000": "70000" is not a port`}},
		{"--fsync sometimes", []string{`--fsync: "sometimes"; give always, everysec or no`}},
		{"--backlog-memory 1kb", []string{"--backlog-memory: 1KiB; give at least 1MiB"}},
		{"--backlog-memory much", []string{"--backlog-memory", `"much" is not a size`, "64MiB"}},
		{"--backlog-disk 1MiB", []string{"--backlog-disk: 1MiB is less than --backlog-keep, 128MiB"}},
		{"--memory 1MiB", []string{"--memory: 1MiB; give at least 32MiB"}},
		{"--background-cpu 0.001", []string{"--background-cpu: 0.001; give at least 0.01, or 0 for half of the processors"}},
		{"--background-cpu=-1", []string{"--background-cpu: -1; give at least 0.01"}},
		{"--background-cpu NaN", []string{"--background-cpu: NaN; give at least 0.01"}},
		{"--background-cpu half", []string{"--background-cpu", `"half"`}},
		{"--log-level loud", []string{`--log-level: "loud"; give trace`}},
		{"--log-format xml", []string{`--log-format: "xml"; give text or json`}},
		{"--no-such", []string{"--no-such"}},
		{"word", []string{"word"}},
		{"--shards 300 --fsync sometimes --memory 1", []string{"300", "sometimes", "--memory: 1;"}},
		{"replica", []string{"--primary is required"}},
		{"replica --primary here", []string{`--primary: "here" is not host:port`}},
		{"replica --primary :16380", []string{`":16380" needs a host`}},
		{"replica --primary h:0", []string{`"h:0" needs a host and a port`}},
		{"replica --primary h:1 --replica-id me", []string{`--replica-id: "me" is not a UUID`}},
		{"replica --primary h:1 --inbox-bytes 1", []string{"--inbox-bytes: 1; give at least 64KiB"}},
		{"replica --primary h:1 --shards 4", []string{"--shards"}},
	} {
		args := strings.Fields(c.args)
		replica := args[0] == "replica"
		if replica {
			args = args[1:]
		}
		_, err := parseValue(replica, "listen", args...)
		if err == nil {
			t.Errorf("%s: accepted", c.args)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v\nwant it to say %q", c.args, err, want)
			}
		}
	}
}

func TestFileFaultsNameTheKeyAndTheFile(t *testing.T) {
	for _, c := range []struct{ content, want string }{
		{"shard = 4", `unknown key "shard"; the keys are the flags' names: `},
		{"data_dir = 'x'", `unknown key "data_dir"; write "data-dir"`},
		{"version = true", `unknown key "version"`},
		{"config = 'x'", `unknown key "config"`},
		{"[primary]\nshards = 4", `key "primary": want a string, a whole number, true or false`},
		{"shards = 1.5", `key "shards": want a string, a whole number`},
		{"\nshards = ", "line 2"},
		{"shards = 'x'", `"x"`},
	} {
		path := writeConfig(t, c.content)
		_, err := parseValue(false, "listen", "--config", path)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %s", c.content, err, c.want)
		}
		if !strings.HasPrefix(fmt.Sprint(err), "--config: "+path) && c.want != `"x"` {
			t.Errorf("%q: %v does not begin with --config and %s", c.content, err, path)
		}
	}
	missing := filepath.Join(t.TempDir(), "missing.toml")
	if _, err := parseValue(false, "listen", "--config", missing); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestHelpAndVersionSayItAndStop(t *testing.T) {
	for _, c := range []struct {
		program program
		options any
		arg     string
		want    string
	}{
		{primaryProgram, &PrimaryOptions{}, "--help", "--replication-port-base"},
		{primaryProgram, &PrimaryOptions{}, "-h", "UNDERSTUDY_DATA_DIR"},
		{primaryProgram, &PrimaryOptions{}, "--version", "primary " + version.String()},
		{replicaProgram, &ReplicaOptions{}, "--version", "replica " + version.String()},
		{replicaProgram, &ReplicaOptions{}, "--help", "127.0.0.1:7380"},
	} {
		var out bytes.Buffer
		err := c.program.parse(c.options, []string{c.arg}, &out, io.Discard)
		if !errors.Is(err, cli.ErrDone) || !strings.Contains(out.String(), c.want) {
			t.Errorf("%s %s: %v, %q", c.program.name, c.arg, err, out.String())
		}
	}
}
