// A page for tests that drive the SDK themselves: what they need to see is kept, nothing is done by
// itself.
const CPCODE = '{{CPCODE}}';
const AUTHKEY = '{{AUTHKEY}}';

const app = {
  events: [], // every presence event since the page was loaded

  async init(id, options) {
    const k = new Knowledgetalk(options);
    window.k = k;
    k.addEventListener('presence', (e) => app.events.push(JSON.parse(JSON.stringify(e.detail))));
    const result = await k.init(CPCODE, AUTHKEY, id, 'Tester');
    if (result.code !== '200') throw new Error(`init: ${JSON.stringify(result)}`);
    return result.userId;
  },

  /**
   * A camera of its own: small, so that many calls fit into one machine. The same object until it
   * is made anew.
   */
  async camera(constraints = { video: { width: 320, height: 240, frameRate: 15 }, audio: true }) {
    app.stream ??= await navigator.mediaDevices.getUserMedia(constraints);
    return app.stream;
  },

  async join(roomId) {
    const result = await k.joinRoom(roomId);
    if (result.code !== '200') throw new Error(`joinRoom: ${JSON.stringify(result)}`);
    return Object.keys(result.members);
  },

  async publish(target, type = 'cam') {
    return k.publishP2P(target, type, await app.camera());
  },

  count: (type, user) =>
    app.events.filter((e) => e.type === type && (e.user === user || e.user?.userId === user))
      .length,

  /** What the app was told of the connection to that user, in order. */
  peerStates: (user) =>
    app.events.filter((e) => e.type === 'peerState' && e.user === user).map((e) => e.state),

  /** The one connection to that user, reported. */
  async report(user) {
    const pc = k.getPeer(user);
    return pc ? e2e.report(pc) : null;
  },
};
window.app = app;
