package server

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/alecthomas/kong"

	"github.com/understudy-kv/understudy/internal/cli"
	"github.com/understudy-kv/understudy/internal/version"
)

const envPrefix = "UNDERSTUDY"

// program is what differs between the two programs before their flags are known.
type program struct{ name, description, dir, listen string }

var (
	primaryProgram = program{"primary", "Serve a sharded keyspace over RESP, and stream it to replicas.", "primary-data", "127.0.0.1:6380"}
	replicaProgram = program{"replica", "Mirror a primary's keyspace, and serve it read-only over RESP.", "replica-data", "127.0.0.1:7380"}
)

// parse fills options, a pointer to a struct of flags, from the defaults, the file, the environment and the flags, each
// over the one before, and validates them. The error is that of [cli.Parse].
func (p program) parse(options any, args []string, stdout, stderr io.Writer) error {
	file := &fileResolver{}
	_, err := cli.Parse(options, args, stdout, stderr, kong.Name(p.name), kong.Description(p.description), kong.DefaultEnvars(envPrefix),
		kong.Vars{"dir": p.dir, "listen": p.listen, "version": p.name + " " + version.String()}, kong.Resolvers(file))
	if file.err != nil && !errors.Is(err, cli.ErrDone) {
		return fmt.Errorf("--config: %w", file.err) // whatever else is wrong may be right in the file
	}
	return err
}

// fileResolver gives kong the values of the file that --config or its environment variable names. kong ranks a
// resolver above the environment, so a flag whose variable is set is left alone.
type fileResolver struct {
	read   bool
	values map[string]string
	err    error // kong would blame the flag that it happened to resolve first
}

// Validate is part of [kong.Resolver]; unknown keys are found while reading.
func (r *fileResolver) Validate(*kong.Application) error { return nil }

// Resolve is part of [kong.Resolver].
func (r *fileResolver) Resolve(ctx *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if !r.read {
		r.read = true
		r.err = r.load(ctx)
	}
	for _, env := range flag.Envs {
		if _, set := os.LookupEnv(env); set {
			return nil, nil
		}
	}
	if v, ok := r.values[flag.Name]; ok {
		return v, nil
	}
	return nil, nil
}

func (r *fileResolver) load(ctx *kong.Context) error {
	var path string
	var known []string
	for _, f := range ctx.Model.Flags {
		switch f.Name {
		case "config":
			path, _ = ctx.FlagValue(f).(string)
		case "help", "version":
		default:
			known = append(known, f.Name)
		}
	}
	if path == "" {
		return nil
	}
	values, err := readFile(path, known)
	r.values = values
	return err
}

// readFile reads a TOML file of plain values under the known keys. Unknown keys are errors: a setting that was misspelt
// must not be a setting that is silently ignored.
func readFile(path string, known []string) (map[string]string, error) {
	var raw map[string]any
	if _, err := toml.DecodeFile(path, &raw); err != nil {
		var syntax toml.ParseError
		if errors.As(err, &syntax) {
			return nil, fmt.Errorf("%s: line %d: %s", path, syntax.Position.Line, syntax.Message)
		}
		return nil, fmt.Errorf("cannot read the file of settings: %w", err)
	}
	values := make(map[string]string, len(raw))
	var errs []error
	for key, v := range raw {
		switch v := v.(type) {
		case string, int64, bool:
			values[key] = fmt.Sprint(v)
		default:
			errs = append(errs, fmt.Errorf("%s: key %q: want a string, a whole number, true or false", path, key))
		}
		if slices.Contains(known, key) {
			continue
		}
		hint := "the keys are the flags' names: " + strings.Join(known, ", ")
		if dashed := strings.ReplaceAll(strings.ToLower(key), "_", "-"); slices.Contains(known, dashed) {
			hint = fmt.Sprintf("write %q", dashed)
		}
		errs = append(errs, fmt.Errorf("%s: unknown key %q; %s", path, key, hint))
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return values, errors.Join(errs...)
}
