package raftlog

import (
	"context"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// logger passes on what raft logs. Nodes come and go: what raft calls an error is a detail here.
type logger struct {
	hclog.Logger // of what is not needed
	log          *slog.Logger
}

func newLogger(log *slog.Logger) logger { return logger{hclog.NewNullLogger(), log} }

func (l logger) put(level slog.Level, msg string, args []any) {
	l.log.Log(context.Background(), level, "raft: "+msg, args...)
}

// Debug implements hclog.Logger, as do the following.
func (l logger) Debug(msg string, args ...any) {}

func (l logger) Trace(msg string, args ...any) {}

func (l logger) Info(msg string, args ...any) { l.put(slog.LevelDebug, msg, args) }

func (l logger) Warn(msg string, args ...any) { l.put(slog.LevelDebug, msg, args) }

func (l logger) Error(msg string, args ...any) { l.put(slog.LevelDebug, msg, args) }

func (l logger) With(args ...any) hclog.Logger { return logger{l.Logger, l.log.With(args...)} }

func (l logger) Named(string) hclog.Logger { return l }

func (l logger) ResetNamed(string) hclog.Logger { return l }
