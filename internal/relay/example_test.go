package relay_test

import (
	"fmt"

	"github.com/ieum-rtc/ieum/internal/relay"
)

// Another TURN server with the same secret, such as coturn with use-auth-secret, computes the same
// password.
func ExampleRESTPassword() {
	username := "1893553445:a-session" // when it ends, in seconds since 1970
	fmt.Println(relay.RESTPassword([]byte("a secret that both servers have"), username))
	// Output: lxPprR76b7g2ePkoFgh3J6ZKHPA=
}
