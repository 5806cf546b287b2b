package relay

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/pion/logging"
	"golang.org/x/time/rate"
)

// libraryLogger takes the TURN library's log lines. Strangers cause most of them, so everything below warning is dropped, and what
// remains is written at most once a minute and without its arguments, which are addresses; at debug they are written out.
type libraryLogger struct {
	log   *slog.Logger
	limit *rate.Limiter
}

func newLibraryLogger(log *slog.Logger) *libraryLogger {
	return &libraryLogger{log: log, limit: rate.NewLimiter(rate.Every(time.Minute), 5)}
}

func (l *libraryLogger) NewLogger(string) logging.LeveledLogger { return l }

func (l *libraryLogger) Trace(string)          {}
func (l *libraryLogger) Tracef(string, ...any) {}
func (l *libraryLogger) Debug(string)          {}
func (l *libraryLogger) Debugf(string, ...any) {}
func (l *libraryLogger) Info(string)           {}
func (l *libraryLogger) Infof(string, ...any)  {}

func (l *libraryLogger) Warn(msg string)                   { l.write("%s", msg) }
func (l *libraryLogger) Warnf(format string, args ...any)  { l.write(format, args...) }
func (l *libraryLogger) Error(msg string)                  { l.write("%s", msg) }
func (l *libraryLogger) Errorf(format string, args ...any) { l.write(format, args...) }

func (l *libraryLogger) write(format string, args ...any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug("turn library: " + fmt.Sprintf(format, args...))
		return
	}
	if l.limit.Allow() {
		l.log.Warn("turn library", "format", format)
	}
}
