package machinetest

import "testing"

func TestMapConforms(t *testing.T) {
	Run(t, func(dir string, beforeFlush func() error, onError func(error)) (Machine, error) {
		return OpenMap(dir, beforeFlush, onError)
	}, Options{})
}
