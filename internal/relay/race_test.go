//go:build race

package relay

func init() { underRace = true }
