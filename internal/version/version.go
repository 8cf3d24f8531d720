// Package version tells which build of Understudy is running.
package version

import "runtime/debug"

// release is the version that releases are built with: -ldflags "-X github.com/understudy-kv/understudy/internal/version.release=1.2.3".
var release = ""

// String is the program's version: the release, or else the commit that it was built from, or "development".
func String() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "development"
	}
	revision, modified := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = "+changes"
		}
	}
	if revision == "" {
		return "development"
	}
	return "development-" + revision + modified
}
