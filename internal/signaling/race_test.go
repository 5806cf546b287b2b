//go:build race

package signaling

func init() { underRace = true }
