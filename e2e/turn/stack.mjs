// One end of a call of a foreign stack, in a process of its own. It is told what to do in lines of
// JSON, and answers likewise:
//
//   node stack.mjs node-datachannel|werift
//   {do: 'offer', servers} → {sdp}
//   {do: 'answer', servers, sdp} → {sdp}
//   {do: 'accept', sdp}
//   {do: 'pair'} → {local, remote}
//   {do: 'close'}
//
// Who offers sends messages over a data channel once it is open and says {echoed} when each has
// come back; who answers sends everything back. Descriptions contain all candidates. A pair is the
// types of the two candidates in use.

import { createInterface } from 'node:readline';

const MESSAGES = 50;
const message = (i) => `${i} ${'x'.repeat(1000)}`;
const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

/** Sends one message after the other; take(text) is to be called with what comes back. */
function sender(send) {
  let i = 0;
  send(message(i));
  return (text) => {
    if (text !== message(i)) throw new Error(`got ${text.slice(0, 20)} for message ${i}`);
    if (++i === MESSAGES) say({ echoed: i });
    else send(message(i));
  };
}

const stacks = {
  async 'node-datachannel'(servers) {
    const { default: rtc } = await import('node-datachannel');
    const pc = new rtc.PeerConnection('end', {
      iceServers: servers.map(({ urls, username, credential }) => {
        const [, hostname, port] = /^turn:([\d.]+):(\d+)/.exec(urls);
        return {
          hostname,
          port: Number(port),
          username,
          password: credential,
          relayType: 'TurnUdp',
        };
      }),
      iceTransportPolicy: 'relay',
    });
    const gathered = new Promise((resolve) =>
      pc.onGatheringStateChange((state) => state === 'complete' && resolve()),
    );
    const described = async () => {
      await gathered;
      return pc.localDescription().sdp;
    };
    let channel;
    return {
      offer() {
        channel = pc.createDataChannel('test');
        channel.onOpen(() => channel.onMessage(sender((text) => channel.sendMessage(text))));
        return described();
      },
      answer(sdp) {
        pc.onDataChannel((c) => {
          channel = c;
          channel.onMessage((text) => channel.sendMessage(text));
        });
        pc.setRemoteDescription(sdp, 'offer');
        return described();
      },
      accept: (sdp) => pc.setRemoteDescription(sdp, 'answer'),
      pair() {
        const { local, remote } = pc.getSelectedCandidatePair();
        return { local: local.type, remote: remote.type };
      },
      close() {
        pc.close();
        rtc.cleanup();
      },
    };
  },

  async werift(servers) {
    const { RTCPeerConnection } = await import('werift');
    const pc = new RTCPeerConnection({ iceServers: servers, iceTransportPolicy: 'relay' });
    const describe = async (description) => {
      await pc.setLocalDescription(description); // it gathers before it returns
      return pc.localDescription.sdp;
    };
    const text = (data) => data.toString();
    return {
      async offer() {
        const channel = pc.createDataChannel('test');
        channel.stateChanged.subscribe((state) => {
          if (state !== 'open') return;
          const take = sender((t) => channel.send(t));
          channel.onMessage.subscribe((data) => take(text(data)));
        });
        return describe(await pc.createOffer());
      },
      async answer(sdp) {
        pc.onDataChannel.subscribe((channel) =>
          channel.onMessage.subscribe((data) => channel.send(text(data))),
        );
        await pc.setRemoteDescription({ type: 'offer', sdp });
        return describe(await pc.createAnswer());
      },
      accept: (sdp) => pc.setRemoteDescription({ type: 'answer', sdp }),
      pair() {
        const { localCandidate, remoteCandidate } = pc.iceTransports[0].connection.nominated;
        return { local: localCandidate.type, remote: remoteCandidate.type };
      },
      close: () => pc.close(),
    };
  },
};

let end;
for await (const line of createInterface({ input: process.stdin })) {
  const { do: what, servers, sdp } = JSON.parse(line);
  end ??= await stacks[process.argv[2]](servers);
  const answer = await end[what](sdp);
  if (what === 'close') break;
  if (what !== 'accept') say(what === 'pair' ? answer : { sdp: answer });
}
process.exit(0);
