// @ts-check
// The path of a call, and whether video arrives: from the browser's statistics.

/**
 * @typedef {object} Way
 * @property {'direct' | 'relayed'} path relayed when either end of the pair in use is a relay
 *   candidate
 * @property {string} candidates types of the pair in use, local–remote, such as "host–host"
 * @property {string} protocol between us and what we send to: "UDP", "TCP", or "TURN/TCP" and the
 *   like towards a relay
 * @property {number | null} roundTrip milliseconds; null: not known yet
 */

/**
 * @typedef {object} VideoStats
 * @property {number} frames decoded since the track began
 * @property {number} rate frames a second; 0: none in the last second
 * @property {number} width
 * @property {number} height
 */

/**
 * @param {RTCPeerConnection} connection
 * @param {MediaStreamTrack | undefined} track the remote video that is shown
 * @returns {Promise<{way: Way | null, video: VideoStats | null}>} null: not known yet
 */
export async function look(connection, track) {
  const stats = await connection.getStats();
  /** @type {any} */
  let pair = null;
  /** @type {VideoStats | null} */
  let video = null;
  for (const s of stats.values()) {
    if (s.type === 'transport' && s.selectedCandidatePairId)
      pair = stats.get(s.selectedCandidatePairId);
    // Firefox marks the pair itself.
    if (s.type === 'candidate-pair' && s.selected && s.state === 'succeeded') pair ??= s;
    if (s.type === 'inbound-rtp' && s.kind === 'video' && track && s.trackIdentifier === track.id) {
      video = {
        frames: s.framesDecoded ?? 0,
        rate: Math.round(s.framesPerSecond ?? 0),
        width: s.frameWidth ?? 0,
        height: s.frameHeight ?? 0,
      };
    }
  }
  return {way: pair ? wayOf(stats, pair, connection.remoteDescription?.sdp ?? '') : null, video};
}

/**
 * @param {RTCStatsReport} stats
 * @param {any} pair
 * @param {string} sdp of the other side, with its candidates
 * @returns {Way | null}
 */
function wayOf(stats, pair, sdp) {
  const local = stats.get(pair.localCandidateId);
  const remote = stats.get(pair.remoteCandidateId);
  if (!local || !remote) return null;
  const remoteType = toldType(remote, sdp);
  const relayed = local.candidateType === 'relay' || remoteType === 'relay';
  const protocol = String(local.protocol ?? 'udp').toUpperCase();
  return {
    path: relayed ? 'relayed' : 'direct',
    candidates: `${local.candidateType}–${remoteType}`,
    protocol:
      local.candidateType === 'relay'
        ? `TURN/${String(local.relayProtocol ?? 'udp').toUpperCase()}`
        : protocol,
    roundTrip:
      typeof pair.currentRoundTripTime === 'number' ? pair.currentRoundTripTime * 1000 : null,
  };
}

/**
 * The type of a remote candidate. If a packet arrives before its description, the type is prflx, in
 * Firefox permanently: a relay would look direct. So the address is looked up among the candidates
 * of the other side.
 * @param {any} remote
 * @param {string} sdp
 * @returns {string}
 */
function toldType(remote, sdp) {
  if (remote.candidateType !== 'prflx') return remote.candidateType;
  for (const line of sdp.split(/\r?\n/)) {
    // RFC 8839, section 5.1: foundation component transport priority address port typ type
    const [, , , , address, port, , type] = line.startsWith('a=candidate:') ? line.split(' ') : [];
    if (address === remote.address && port === String(remote.port)) return type;
  }
  return 'prflx';
}

/**
 * @param {Way} way
 * @returns {string} such as "host–host · UDP · 12 ms"
 */
export function describe(way) {
  const parts = [way.candidates, way.protocol];
  if (way.roundTrip !== null)
    parts.push(way.roundTrip < 1 ? '< 1 ms' : `${Math.round(way.roundTrip)} ms`);
  return parts.join(' · ');
}
