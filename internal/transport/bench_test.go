package transport

import (
	"bytes"
	"fmt"
	"testing"
)

// benchOutbox is an outbox whose socket takes everything at once, or, without direct, one whose
// writer goroutine does all writing.
func benchOutbox(direct bool) *outbox {
	o := &outbox{
		maxCount:   2048,
		maxBytes:   1 << 20,
		write:      func([]byte) error { return nil },
		onDrained:  func(StatusCode, string) {},
		abortWrite: func() {},
		backlog:    NewBacklog(0),
	}
	if direct {
		o.tryWrite = func(b []byte) (int, error) { return len(b), nil }
	}
	return o
}

// BenchmarkOutboxDirect: the socket takes each message at once.
func BenchmarkOutboxDirect(b *testing.B) {
	for _, size := range []int{128, 4 << 10} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			o, payload := benchOutbox(true), make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				m := NewMessage()
				m.B = append(m.B, payload...)
				if !o.send(m) {
					b.Fatal("message refused")
				}
			}
		})
	}
}

// BenchmarkOutboxQueued: sixteen messages wait for the writer goroutine, which is started for them
// and ends.
func BenchmarkOutboxQueued(b *testing.B) {
	o, payload := benchOutbox(false), make([]byte, 128)
	b.ReportAllocs()
	for b.Loop() {
		for range 16 {
			m := NewMessage()
			m.B = append(m.B, payload...)
			if !o.send(m) {
				b.Fatal("message refused")
			}
		}
		o.writers.Wait()
	}
}

// BenchmarkOutboxFanout: one message with a reference for each of sixteen outboxes.
func BenchmarkOutboxFanout(b *testing.B) {
	var all [16]*outbox
	for i := range all {
		all[i] = benchOutbox(true)
	}
	payload := make([]byte, 256)
	b.ReportAllocs()
	for b.Loop() {
		m := NewMessage()
		m.B = append(m.B, payload...)
		m.Retain(len(all))
		for _, o := range all {
			if !o.send(m) {
				b.Fatal("message refused")
			}
		}
		m.Release()
	}
}

// discard takes what frames bring and keeps nothing.
type discard struct{ messages int }

func (d *discard) onMessage(byte, []byte)       { d.messages++ }
func (d *discard) onControl(byte, []byte) error { return nil }
func (d *discard) onSmallFrame() error          { return nil }

// BenchmarkFrameScanner: whole messages, and one that comes in reads of 512 bytes.
func BenchmarkFrameScanner(b *testing.B) {
	for _, c := range []struct {
		name       string
		size, read int
	}{
		{"64B", 64, 8 << 10},
		{"1KiB", 1 << 10, 8 << 10},
		{"7KiB", 7 << 10, 8 << 10},
		{"7KiB in pieces", 7 << 10, 512},
	} {
		b.Run(c.name, func(b *testing.B) {
			wire := masked(0x81, string(bytes.Repeat([]byte{'x'}, c.size)))
			buf := make([]byte, len(wire))
			f, d := frameScanner{limit: 64 << 10}, &discard{}
			b.SetBytes(int64(c.size))
			b.ReportAllocs()
			for b.Loop() {
				copy(buf, wire) // reading unmasks in place
				for rest := buf; len(rest) > 0; {
					n := min(c.read, len(rest))
					if err := f.scan(rest[:n], d); err != nil {
						b.Fatal(err)
					}
					rest = rest[n:]
				}
			}
			if d.messages == 0 {
				b.Fatal("no message was read")
			}
		})
	}
}
