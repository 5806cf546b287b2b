package transport

import (
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// stuckAll are connections of one server whose other ends never read.
func stuckAll(t *testing.T, b *Backlog, n int) (conns []*wsConn, ends []*echo, ours []net.Conn) {
	for range n {
		c, e, nc := stuck(t, Config{Backlog: b})
		conns, ends, ours = append(conns, c), append(ends, e), append(ours, nc)
	}
	return conns, ends, ours
}

// Who has left the most unread is closed when all together have left too much, and nobody else.
func TestBacklogShedsLargestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBacklog(2 << 20)
		conns, ends, ours := stuckAll(t, b, 5)
		for _, i := range []int{3, 0, 1, 2, 4} { // 900, 100, 300, 500 and 600 KB: 2.4 MB together
			for range []int{1, 3, 5, 9, 6}[i] {
				conns[i].Send(sized(100_000))
				synctest.Wait()
			}
		}
		if got := b.Stats(); got.Bytes > 2<<20 || got.Shed != 1 {
			t.Errorf("%+v", got)
		}
		time.Sleep(2 * time.Second) // what was being written when it was closed is given up
		synctest.Wait()
		for i, e := range ends {
			select {
			case end := <-e.end:
				if i != 3 || !end.SlowConsumer || end.Gone {
					t.Errorf("connection %d ended with %+v", i, end)
				}
			default:
				if i == 3 {
					t.Error("the connection with the most unread was left")
				}
			}
		}
		for _, nc := range ours {
			go func() { _, _ = io.Copy(io.Discard, nc) }()
		}
		synctest.Wait()
		if got := b.Stats().Bytes; got != 0 {
			t.Errorf("%d bytes are counted when everything is read", got)
		}
		b.Close()
	})
}

// A message for many is one message, until it is written to each.
func TestBacklogCountsMessageOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBacklog(64 << 20)
		conns, ends, ours := stuckAll(t, b, 20)
		for _, c := range conns {
			c.Send(sized(10)) // is being written
		}
		synctest.Wait()
		m := sized(200_000)
		m.Retain(len(conns))
		for _, c := range conns {
			c.Send(m)
		}
		synctest.Wait()
		if got := b.Stats().Bytes; got < 200_000 || got > 600_000 {
			t.Errorf("%d bytes are counted for a message of 200,000", got)
		}
		m.Release()
		for _, nc := range ours {
			go func() { _, _ = io.Copy(io.Discard, nc) }()
		}
		synctest.Wait()
		if s := b.Stats(); s.Bytes != 0 || s.Shed != 0 {
			t.Errorf("%+v when everything is read", s)
		}
		for _, e := range ends {
			if len(e.end) > 0 {
				t.Error("closed")
			}
		}
	})
}

func TestBacklogWithoutLimit(t *testing.T) {
	b := NewBacklog(-1)
	b.Hold(sized(1 << 20))
	if b.Stats().Bytes == 0 || b.Scarce() {
		t.Errorf("%+v, scarce: %v", b.Stats(), b.Scarce())
	}
	var none *Backlog
	none.Hold(sized(1))
	none.Watch(nil)
	none.Close()
	if none.Scarce() {
		t.Error("nothing is scarce")
	}
}

// A connection that is being closed has its client read what is left, for as long as there is
// enough for all.
func TestBacklogShedsClosingConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBacklog(1 << 20)
		conns, ends, ours := stuckAll(t, b, 2)
		for range 8 {
			conns[0].Send(sized(100_000))
			synctest.Wait()
		}
		conns[0].Close(4001, "taken over")
		for range 4 {
			conns[1].Send(sized(100_000))
			synctest.Wait()
		}
		if got := b.Stats(); got.Bytes > 700_000 || got.Shed != 1 {
			t.Errorf("%+v", got)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(ends[0].end) != 1 || len(ends[1].end) != 0 {
			t.Errorf("the closed one ended %d times, the other one %d times", len(ends[0].end),
				len(ends[1].end))
		}
		for _, nc := range ours {
			go func() { _, _ = io.Copy(io.Discard, nc) }()
		}
		synctest.Wait()
		if got := b.Stats().Bytes; got != 0 {
			t.Errorf("%d bytes are counted when everything is read", got)
		}
		b.Close()
	})
}

// Clients that never finish their messages, and ping to stay, hold half of the limit together.
// Those with the most are closed, and what is queued for others is not affected.
func TestBacklogBoundsUnfinishedMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, size = 2 << 20, 60_000
		b := NewBacklog(limit)
		conns, ends, ours := stuckAll(t, b, 64)
		for _, nc := range ours {
			go func() { _, _ = io.Copy(io.Discard, nc) }()
		}
		small := masked(0x01, strings.Repeat("x", 2000))
		if _, err := ours[0].Write(small); err != nil { // an honest message that arrives slowly
			t.Fatal(err)
		}
		for _, nc := range ours[1:] {
			_, _ = nc.Write(masked(0x01, strings.Repeat("x", size)))
			synctest.Wait()
		}
		if b.Scarce() {
			t.Error("messages to others are refused")
		}
		time.Sleep(2 * time.Second)
		for range 4 {
			for _, nc := range ours {
				_, _ = nc.Write(masked(0x89, ""))
			}
			time.Sleep(25 * time.Second)
		}
		open, kept := 0, 0
		for i, e := range ends {
			if len(e.end) == 0 {
				open++
				kept += int(conns[i].partial.Load())
			}
		}
		if kept > limit/2 || open < limit/2/size/2 || int64(kept) != b.Stats().Partial {
			t.Errorf("%d are open, with %d bytes of %+v", open, kept, b.Stats())
		}
		if len(ends[0].end) != 0 {
			t.Fatal("the one with the least is closed")
		}
		if _, err := ours[0].Write(masked(0x80, "end")); err != nil {
			t.Fatal(err)
		}
		for _, nc := range ours {
			_ = nc.Close()
		}
		synctest.Wait()
		time.Sleep(2 * time.Second)
		if got := b.Stats(); got.Bytes != 0 || got.Partial != 0 {
			t.Errorf("%+v when all have gone", got)
		}
		b.Close()
	})
}
