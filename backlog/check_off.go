//go:build !understudy_check

package backlog

// checks turns the check of invariants on, with the tag understudy_check.
const checks = false
