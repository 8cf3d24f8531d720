// Package lint holds the rules of this repository that a compiler does not know: who may import whom and why, where
// clocks, goroutines and files are allowed, and what every file looks like. Each rule is a function from parsed files to
// findings; the package's tests run them over the whole repository, and over small offenders, so that a rule which
// sees nothing is noticed.
package lint
