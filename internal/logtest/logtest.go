// Package logtest has a log for tests.
package logtest

import (
	"bytes"
	"sync"
)

// Buffer is a log that a test may read while others write it. The zero value is empty.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer // Guarded by mu.
}

// Write implements io.Writer.
func (l *Buffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String is what has been written.
func (l *Buffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
