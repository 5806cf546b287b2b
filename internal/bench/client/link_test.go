package client

import (
	"errors"
	"testing"

	"github.com/lxzan/gws"
)

// A link says how the server ended its connection, and nothing when this side ended it.
func TestLinksTellHowTheyEnd(t *testing.T) {
	closed := &gws.CloseError{Code: 1008, Reason: []byte("too many")}
	for name, c := range map[string]struct {
		left bool
		want string
	}{
		"by the server": {false, "close code 1008 too many"},
		"by this side":  {true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			l := &Link{
				gone:  make(chan struct{}),
				Ended: func(err error) { got = CloseError(err).Error() },
			}
			l.left.Store(c.left)
			l.OnClose(nil, closed)
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			<-l.Gone() // closed either way
		})
	}
	other := errors.New("broken pipe")
	if err := CloseError(other); err != other {
		t.Errorf("%v", err)
	}
}
