// The npm server of PeerJS on a free loopback port, which it prints. Its two limits that the load
// would run into are raised: 5,000 users, and 90 s without a word from a client (its own client
// says one every 5 s; here nobody does, which is in its favour).
import { PeerServer } from "peer";

PeerServer(
  { host: "127.0.0.1", port: 0, path: "/", concurrent_limit: 100_000, alive_timeout: 3_600_000 },
  (server) => {
    console.log(`ws://127.0.0.1:${server.address().port}/peerjs`);
  },
);
