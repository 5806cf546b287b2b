// Runs in the page before anything else: keeps account of every RTCPeerConnection. It changes nothing that the page can notice.
(() => {
  const Native = window.RTCPeerConnection;
  if (!Native || window.e2e) return;
  // spare: those that can only be relayed, which the SDK keeps beside the one that it has made for a pair.
  const e2e = { made: [], spare: [] };
  Object.defineProperty(window, 'e2e', { value: e2e });
  window.RTCPeerConnection = class RTCPeerConnection extends Native {
    constructor(...args) {
      super(...args);
      (args[0]?.iceTransportPolicy === 'relay' ? e2e.spare : e2e.made).push(this);
    }
  };

  /** Connections that are not closed. */
  e2e.open = () => e2e.made.filter((pc) => pc.connectionState !== 'closed');

  /** What one connection does, from getStats(). */
  e2e.report = async (pc) => {
    const stats = new Map();
    (await pc.getStats()).forEach((s) => stats.set(s.id, s));
    const all = [...stats.values()];
    // Firefox has no transport statistics; there the selected pair says so itself.
    const transport = all.find((s) => s.type === 'transport' && s.selectedCandidatePairId);
    const pair = transport ? stats.get(transport.selectedCandidatePairId) : all.find((s) => s.type === 'candidate-pair' && s.selected);
    const end = (id) => {
      const c = stats.get(id);
      return c ? { type: c.candidateType, protocol: c.protocol, relayProtocol: c.relayProtocol ?? null, address: c.address ?? null } : null;
    };
    const sum = (type, kind, field) =>
      all.filter((s) => s.type === type && s.kind === kind).reduce((n, s) => n + (s[field] ?? 0), 0);
    const media = (kind) => ({
      encoded: sum('outbound-rtp', kind, 'framesEncoded'),
      sent: sum('outbound-rtp', kind, 'packetsSent'),
      sentBytes: sum('outbound-rtp', kind, 'bytesSent'),
      decoded: sum('inbound-rtp', kind, 'framesDecoded'),
      keys: sum('inbound-rtp', kind, 'keyFramesDecoded'),
      received: sum('inbound-rtp', kind, 'packetsReceived'),
      receivedBytes: sum('inbound-rtp', kind, 'bytesReceived'),
    });
    return {
      state: pc.connectionState,
      local: end(pair?.localCandidateId),
      remote: end(pair?.remoteCandidateId),
      pairBytes: pair ? { sent: pair.bytesSent ?? 0, received: pair.bytesReceived ?? 0 } : null,
      video: media('video'),
      audio: media('audio'),
    };
  };

  /** Frames that a video element has shown: decoded and painted, not only received. */
  e2e.frames = (video) => video?.mozPaintedFrames ?? video?.getVideoPlaybackQuality().totalVideoFrames ?? 0;
})();
