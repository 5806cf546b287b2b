// A npm Socket.IO server as one writes it for two users in a room: the event join enters a room,
// the event knowledgetalk goes on to the rest of it. On a free loopback port, which it prints;
// everything else is Socket.IO's default.
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
new Server(http).on("connection", (socket) => {
  socket.on("join", (room, done) => {
    socket.data.room = room;
    socket.join(room);
    done();
  });
  socket.on("knowledgetalk", (message) =>
    socket.to(socket.data.room).emit("knowledgetalk", message),
  );
});
http.listen(0, "127.0.0.1", () => console.log(`ws://127.0.0.1:${http.address().port}/socket.io/`));
