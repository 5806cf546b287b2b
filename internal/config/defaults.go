package config

import (
	"fmt"
	"strings"

	"github.com/ieum-rtc/ieum/internal/relay"
	"github.com/ieum-rtc/ieum/internal/signaling"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// Defaults are the defaults of settings by the names of their flags, as a person writes them. The
// packages that use the settings define them.
func Defaults() map[string]string {
	l := signaling.DefaultLimits()
	text := map[string]string{}
	for flag, value := range map[string]any{
		"max-connections":              transport.DefaultConnections,
		"max-unregistered-per-address": transport.DefaultUnregistered,
		"max-queued-bytes":             transport.DefaultBacklog,
		"max-failed-logins":            l.FailedLogins,
		"max-joins":                    l.Joins,
		"max-failed-joins":             l.FailedJoins,
		"max-failed-joins-per-address": l.FailedJoinsOfAddress,
		"max-candidates":               l.Candidates,
		"max-rooms-per-user":           l.Rooms,
		"max-sessions-per-address":     l.AddressSessions,
		"max-rooms-per-address":        l.AddressRooms,
		"max-takeovers":                l.Takeovers,
		"resume-window":                signaling.DefaultResumeWindow,
		"session-rate":                 signaling.DefaultRate,
		"session-burst":                signaling.DefaultBurst,
		"relay-quota":                  relay.DefaultSessionQuota,
		"relay-quota-per-address":      relay.DefaultSourceQuota,
		"relay-quota-total":            relay.DefaultTotalQuota,
		"relay-bandwidth":              relay.DefaultBandwidth,
		"relay-coalesce":               relay.DefaultCoalesce,
		"stun-listen":                  stunPort,
		"listen":                       ":" + serverPort,
		"admin-listen":                 adminListen,
	} {
		text[flag] = strings.ReplaceAll(fmt.Sprint(value), "µs", "us")
	}
	text["relay-ports"] = fmt.Sprintf("%d-%d", relay.DefaultMinPort, relay.DefaultMaxPort)
	return text
}
