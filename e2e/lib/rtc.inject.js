// Runs in the page before anything else: records every RTCPeerConnection. The page cannot notice
// it.
(() => {
  const Native = window.RTCPeerConnection;
  if (!Native || window.e2e) return;
  // backup: connections that may only be relayed. The SDK keeps one beside each connection it made.
  const e2e = { made: [], backup: [] };
  Object.defineProperty(window, 'e2e', { value: e2e });
  window.RTCPeerConnection = class RTCPeerConnection extends Native {
    constructor(...args) {
      super(...args);
      (args[0]?.iceTransportPolicy === 'relay' ? e2e.backup : e2e.made).push(this);
    }
  };

  /** Connections that are not closed. */
  e2e.open = () => e2e.made.filter((pc) => pc.connectionState !== 'closed');

  /** What one connection does, from getStats(). */
  e2e.report = async (pc) => {
    const stats = new Map();
    (await pc.getStats()).forEach((s) => stats.set(s.id, s));
    const all = [...stats.values()];
    // Firefox has no transport statistics: there the selected pair has a field of its own.
    const transport = all.find((s) => s.type === 'transport' && s.selectedCandidatePairId);
    const pairs = all.filter((s) => s.type === 'candidate-pair');
    const pair = transport
      ? stats.get(transport.selectedCandidatePairId)
      : pairs.find((s) => s.selected);
    const end = (id) => {
      const c = stats.get(id);
      return c ? {
        type: c.candidateType,
        protocol: c.protocol,
        relayProtocol: c.relayProtocol ?? null,
        address: c.address ?? null,
      } : null;
    };
    const sum = (type, kind, field) => all
      .filter((s) => s.type === type && s.kind === kind)
      .reduce((n, s) => n + (s[field] ?? 0), 0);
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
      backup: e2e.backup.includes(pc),
      local: end(pair?.localCandidateId),
      remote: end(pair?.remoteCandidateId),
      pairBytes: pair ? { sent: pair.bytesSent ?? 0, received: pair.bytesReceived ?? 0 } : null,
      // Every pair that has sent anything, also one that is no longer selected.
      pairs: pairs.filter((s) => s.bytesSent > 0).map((s) => ({
        id: s.id,
        local: end(s.localCandidateId),
        remote: end(s.remoteCandidateId),
        sent: s.bytesSent,
      })),
      video: media('video'),
      audio: media('audio'),
    };
  };

  /**
   * Reports of all connections of the page, also backup ones: a call may use either. In the order
   * in which they were made, first all of `made`; null for a closed one.
   */
  e2e.reports = () => Promise.all([...e2e.made, ...e2e.backup].map(
    (pc) => (pc.connectionState === 'closed' ? null : e2e.report(pc)),
  ));

  /** Frames that a video element has shown: decoded and painted, not only received. */
  e2e.frames = (video) =>
    video?.mozPaintedFrames ?? video?.getVideoPlaybackQuality().totalVideoFrames ?? 0;
})();
