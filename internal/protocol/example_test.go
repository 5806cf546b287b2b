package protocol_test

import (
	"fmt"

	"github.com/ieum-rtc/ieum/internal/protocol"
)

// A relayed message is scanned, not parsed: what one member says to another passes on as it came,
// with the sender and without what is for the server alone.
func ExampleEnvelope_AppendRelayed() {
	msg := []byte(`{"eventOp":"candidate","reqId":"7","target":"lee",` +
		`"candidate":{"candidate":"…"},"gen":1}`)
	var e protocol.Envelope
	if err := e.Scan(msg); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s to %s\n", e.Op, e.Target)
	fmt.Printf("%s\n", e.AppendRelayed(nil, protocol.AppendString(nil, "kim")))
	// Output:
	// candidate to lee
	// {"userId":"kim","eventOp":"candidate","target":"lee","candidate":{"candidate":"…"},"gen":1}
}
