// Package signaling is a small client of the wire protocol (docs/protocol.md), for programs that
// are not browsers.
package signaling

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

// Message is one JSON object of the wire.
type Message map[string]any

// Str returns a field that is text, or "".
func (m Message) Str(name string) string { s, _ := m[name].(string); return s }

// Client is a registered user. Send may be called by several goroutines; Ask and Next by one.
type Client struct {
	UserID     string
	ICEServers any // as RTCPeerConnection takes them

	conn   *websocket.Conn
	asked  int
	queued []Message // came while Ask waited for its answer
}

// Register connects to a server such as http://127.0.0.1:7102. login holds cpCode and authKey (a
// license or a user token), and perhaps userId and name. An empty login takes the license that a
// server started with --dev shows.
func Register(ctx context.Context, server string, login Message) (*Client, error) {
	if login["cpCode"] == nil {
		answer, err := http.Get(server + "/dev/license")
		if err != nil {
			return nil, err
		}
		defer answer.Body.Close()
		if err := json.NewDecoder(answer.Body).Decode(&login); err != nil {
			return nil, fmt.Errorf("development license: %w", err)
		}
	}
	conn, _, err := websocket.Dial(ctx, strings.Replace(server, "http", "ws", 1)+"/signal", nil)
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(1 << 20) // what joinRoom answers in a full room
	c := &Client{conn: conn}
	login["eventOp"] = "register"
	answer, err := c.Ask(ctx, login)
	if err != nil {
		return nil, err
	}
	c.UserID, c.ICEServers = answer.Str("userId"), answer["iceServers"]
	return c, nil
}

// Join creates the room if there is none with this id (443: there is), joins it and returns its
// state.
func (c *Client) Join(ctx context.Context, room string) (Message, error) {
	if answer, err := c.Ask(ctx, Message{"eventOp": "createRoom", "roomId": room}); err != nil &&
		answer.Str("code") != "443" {
		return nil, err
	}
	return c.Ask(ctx, Message{"eventOp": "joinRoom", "roomId": room})
}

// Send does not wait for an answer.
func (c *Client) Send(ctx context.Context, m Message) error { return wsjson.Write(ctx, c.conn, m) }

// Ask waits for the answer. A code other than 200 is an error that tells why and what to do.
func (c *Client) Ask(ctx context.Context, m Message) (Message, error) {
	c.asked++
	m["reqId"] = strconv.Itoa(c.asked)
	if err := c.Send(ctx, m); err != nil {
		return nil, err
	}
	for {
		var got Message
		if err := wsjson.Read(ctx, c.conn, &got); err != nil {
			return nil, err
		}
		if got["reqId"] != m["reqId"] {
			c.queued = append(c.queued, got)
		} else if got.Str("code") != "200" {
			return got, fmt.Errorf(
				"%s: %s %s %s", m["eventOp"], got["code"], got["message"], got.Str("hint"),
			)
		} else {
			return got, nil
		}
	}
}

// Next returns the next presence event or message of another member, or the answer to something
// that was sent.
func (c *Client) Next(ctx context.Context) (got Message, err error) {
	if len(c.queued) > 0 {
		got, c.queued = c.queued[0], c.queued[1:]
		return got, nil
	}
	return got, wsjson.Read(ctx, c.conn, &got)
}

// Close leaves the room and ends the session at once. A lost connection would keep both for the
// resume window.
func (c *Client) Close() error { return c.conn.Close(websocket.StatusNormalClosure, "") }
