// What is left when a server does nothing but find the receiver: npm's ws and a map, in the words
// of PeerJS's protocol. No login, no rooms, no limits, no heartbeat. On a free loopback port, which
// it prints.
import { WebSocketServer } from "ws";

const clients = new Map();
const server = new WebSocketServer({ host: "127.0.0.1", port: 0 }, () =>
  console.log(`ws://127.0.0.1:${server.address().port}/`),
);
server.on("connection", (socket, request) => {
  const id = new URL(request.url, "ws://localhost").searchParams.get("id");
  clients.set(id, socket);
  socket.on("close", () => clients.delete(id));
  socket.on("message", (text) => {
    const message = JSON.parse(text);
    message.src = id;
    clients.get(message.dst)?.send(JSON.stringify(message));
  });
  socket.send('{"type":"OPEN"}');
});
