package transport

import (
	"net"
	"net/http"
	"testing"
)

// BenchmarkPoller: one message over loopback, from the client's write to the handler, on one of
// many connections that are otherwise idle.
func BenchmarkPoller(b *testing.B) {
	handler := bell{make(chan struct{})}
	ws := NewWebSocket(unswept, func(Conn) Receiver { return handler })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{Handler: ws}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(l)
	}()
	var conns [64]net.Conn
	for i := range conns {
		if conns[i], err = net.Dial("tcp", l.Addr().String()); err != nil {
			b.Fatal(err)
		}
		greet(b, conns[i], nil)
	}
	text, i := masked(0x81, `{"eventOp":"keepAlive"}`), 0
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conns[i%len(conns)].Write(text); err != nil {
			b.Fatal(err)
		}
		<-handler.rung
		i++
	}
	b.StopTimer()
	for _, c := range conns {
		_ = c.Close()
	}
	_ = ws.Close(b.Context())
	_ = srv.Close()
	<-served
}
