// A client that knows nothing of our SDK: a WebSocket, and one one-way RTCPeerConnection for each
// direction, type and user.
const raw = {
  messages: [],
  out: {}, // connections that send, by type and user
  in: {}, // connections that receive
  asked: {},

  async start(userId) {
    raw.me = userId;
    raw.socket = new WebSocket('{{HOST}}'.replace(/^http/, 'ws') + '/signal');
    raw.socket.onmessage = (e) => raw.hear(JSON.parse(e.data));
    await new Promise((open) => (raw.socket.onopen = open));
    const answer = await raw.ask({
      eventOp: 'register',
      cpCode: '{{CPCODE}}',
      authKey: '{{AUTHKEY}}',
      userId,
    });
    raw.servers = answer.iceServers;
    return answer.code;
  },

  ask(message) {
    const reqId = String(Object.keys(raw.asked).length + 1);
    return new Promise((done) => {
      raw.asked[reqId] = done;
      raw.say({ reqId, ...message });
    });
  },

  say: (message) => raw.socket.send(JSON.stringify({ userId: raw.me, ...message })),

  /** A new connection; candidates go out as they come, one by one. */
  connection(target, type) {
    const pc = new RTCPeerConnection({ iceServers: raw.servers });
    pc.onicecandidate = ({ candidate }) => {
      if (candidate)
        raw.say({ eventOp: 'candidate', target, candidate, type, cam: type === 'cam' });
    };
    pc.waiting = [];
    return pc;
  },

  /** Sends a stream. */
  async call(target, type, stream) {
    const pc = (raw.out[`${type} ${target}`] = raw.connection(target, type));
    for (const track of stream.getTracks())
      pc.addTransceiver(track, { direction: 'sendonly', streams: [stream] });
    await pc.setLocalDescription(await pc.createOffer());
    return raw.ask({ eventOp: 'sdp', target, type, sdp: pc.localDescription.toJSON() });
  },

  hear(m) {
    raw.messages.push(m);
    if (m.code) return raw.asked[m.reqId]?.(m);
    raw.queue = (raw.queue ?? Promise.resolve()).then(() => raw.handle(m));
  },

  async handle(m) {
    const key = `${m.type} ${m.userId}`;
    if (m.eventOp === 'sdp' && m.sdp.type === 'offer') {
      raw.in[key]?.close();
      const pc = (raw.in[key] = raw.connection(m.userId, m.type));
      pc.ontrack = ({ streams }) => (raw.remote = { ...raw.remote, [key]: streams[0] });
      await pc.setRemoteDescription(m.sdp);
      await pc.setLocalDescription(await pc.createAnswer());
      await raw.ask({
        eventOp: 'sdp',
        target: m.userId,
        type: m.type,
        sdp: pc.localDescription.toJSON(),
      });
    } else if (m.eventOp === 'sdp') {
      await raw.out[key].setRemoteDescription(m.sdp);
      for (const candidate of raw.out[key].waiting)
        await raw.out[key].addIceCandidate(candidate).catch(() => {});
    } else if (m.eventOp === 'candidate') {
      // It may belong to either direction: the user fragment tells the browser.
      for (const pc of [raw.out[key], raw.in[key]]) {
        if (pc?.remoteDescription) await pc.addIceCandidate(m.candidate).catch(() => {});
        else pc?.waiting.push(m.candidate);
      }
    }
  },
};
window.raw = raw;
