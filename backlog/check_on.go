//go:build understudy_check

package backlog

// checks turns the check of invariants on.
const checks = true
