// The backend of an app: it gives each signed-in user a token, and the page passes that to
// kt.init(cpCode, token). Then the license alone admits nobody, and nobody can take the id of
// another user. No dependencies.
//
//   ieum license issue --cp-code MY-APP --require-user-token --json …
//
// prints what the first three variables need:
//   CP_CODE=… AUTH_KEY=… USER_TOKEN_KEY=… USERS='{"kim":"password"}' node server.mjs
//   curl -u kim:password 'http://127.0.0.1:8080/token?room=weekly'

import { createHmac, timingSafeEqual } from 'node:crypto';
import { createServer } from 'node:http';

const { CP_CODE, AUTH_KEY, USER_TOKEN_KEY, USERS, PORT = '8080' } = process.env;
const key = Buffer.from(USER_TOKEN_KEY, 'base64'); // 32 bytes that never leave the backend
const users = new Map(Object.entries(JSON.parse(USERS)));

/**
 * A compact JWT (RFC 7519) for one user and one room. It lets the user in for five minutes; a call
 * goes on after that.
 */
function userToken(user, room) {
  const now = Math.floor(Date.now() / 1000);
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = [
    encode({ alg: 'HS256', typ: 'user+jwt' }),
    encode({
      authCode: CP_CODE,
      license: AUTH_KEY,
      sub: user,
      rooms: [room],
      iat: now,
      exp: now + 300,
    }),
  ].join('.');
  return `${signed}.${createHmac('sha256', key).update(signed).digest('base64url')}`;
}

/**
 * The user of a request, here by HTTP Basic. An app has a session or single sign-on instead.
 */
function signedIn(request) {
  const [scheme, value = ''] = (request.headers.authorization ?? '').split(' ');
  const [user, ...password] = Buffer.from(value, 'base64').toString().split(':');
  if (scheme !== 'Basic' || !users.has(user)) return null;
  // digests have the same length, whatever the text
  const digest = (text) => createHmac('sha256', key).update(text).digest();
  return timingSafeEqual(digest(password.join(':')), digest(users.get(user))) ? user : null;
}

createServer((request, response) => {
  const url = new URL(request.url, 'http://backend');
  const user = signedIn(request);
  const room = url.searchParams.get('room');
  const reply = (status, body, headers = {}) => {
    response.writeHead(status, {
      'content-type': 'application/json',
      'cache-control': 'no-store',
      ...headers,
    });
    response.end(JSON.stringify(body));
  };
  if (url.pathname !== '/token' || request.method !== 'GET') {
    return reply(404, { error: 'not found' });
  }
  if (!user) {
    const challenge = { 'www-authenticate': 'Basic realm="calls"' };
    return reply(401, { error: 'sign in first' }, challenge);
  }
  if (!room) return reply(400, { error: 'room is missing' });
  // Whether this user may enter this room is for your app to decide, here.
  reply(200, { cpCode: CP_CODE, token: userToken(user, room) });
}).listen(Number(PORT), '127.0.0.1', function listening() {
  console.log(`http://127.0.0.1:${this.address().port}/token`);
});
