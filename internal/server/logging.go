package server

import (
	"io"

	"github.com/hashicorp/go-hclog"
)

var logLevels = map[string]hclog.Level{
	"trace": hclog.Trace, "debug": hclog.Debug, "info": hclog.Info, "warn": hclog.Warn, "error": hclog.Error,
}

// newLogger makes the process's root logger. Validate has checked the options. Levels are shared by everything that is
// derived from it, so that CONFIG SET loglevel reaches all of them.
func newLogger(name string, o *NodeOptions, w io.Writer) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name:              name,
		Level:             logLevels[o.LogLevel],
		Output:            w,
		JSONFormat:        o.LogFormat == "json",
		IndependentLevels: false,
	})
}
