package link

import (
	"testing"
	"time"
)

func TestSet(t *testing.T) {
	start := Params{Delay: time.Second}
	for _, c := range []struct {
		name, key, value string
		want             Params
		bad              bool
	}{
		{name: "delay", key: "delay", value: "25ms", want: Params{Delay: 25 * time.Millisecond}},
		{
			name: "jitter", key: "jitter", value: "1ms",
			want: Params{Delay: time.Second, Jitter: time.Millisecond},
		},
		{
			name: "queue", key: "queue", value: "50ms",
			want: Params{Delay: time.Second, Queue: 50 * time.Millisecond},
		},
		{name: "loss", key: "loss", value: "0.5", want: Params{Delay: time.Second, Loss: 0.5}},
		{name: "rate", key: "rate", value: "2e6", want: Params{Delay: time.Second, Rate: 2e6}},
		{name: "down", key: "down", value: "true", want: Params{Delay: time.Second, Down: true}},
		{name: "negative delay", key: "delay", value: "-1ms", bad: true},
		{name: "delay without unit", key: "delay", value: "5", bad: true},
		{name: "delay that would fill memory", key: "delay", value: "1h", bad: true},
		{name: "loss above one", key: "loss", value: "1.5", bad: true},
		{name: "loss not a number", key: "loss", value: "NaN", bad: true},
		{name: "rate not a number", key: "rate", value: "NaN", bad: true},
		{name: "rate of nearly nothing", key: "rate", value: "1e-9", bad: true},
		{name: "down of another kind", key: "down", value: "maybe", bad: true},
		{name: "unknown name", key: "colour", value: "red", bad: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := start
			err := p.Set(c.key, c.value)
			if c.bad {
				if err == nil || p != start {
					t.Fatalf("got %+v, %v; want an error and nothing changed", p, err)
				}
				return
			}
			if err != nil || p != c.want {
				t.Fatalf("got %+v, %v; want %+v", p, err, c.want)
			}
		})
	}
}
