// An authority of the laboratory, and browsers that trust it: as strict about certificates as those
// of users, without a question to click away.

import fs from 'node:fs';
import path from 'node:path';
import { execFileSync } from 'node:child_process';
import { PATH } from './process.mjs';

const run = (command, ...argv) =>
  execFileSync(command, argv, { env: { ...process.env, PATH }, stdio: 'pipe' });

/**
 * Makes an authority and a certificate for the names and addresses.
 * @returns {{ca: string, cert: string, key: string}} files, PEM
 */
export function authority(dir, names) {
  const at = (name) => path.join(dir, name);
  const curve = [
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:prime256v1',
    '-nodes',
    '-days',
    '2',
  ];
  const extensions = (name, lines) => (fs.writeFileSync(at(name), lines.join('\n')), at(name));
  run(
    'openssl',
    'req',
    '-x509',
    ...curve,
    '-subj',
    '/CN=Laboratory CA',
    '-keyout',
    at('ca.key'),
    '-out',
    at('ca.pem'),
    '-addext',
    'basicConstraints=critical,CA:TRUE',
    '-addext',
    'keyUsage=critical,keyCertSign',
  );
  run(
    'openssl',
    'req',
    '-new',
    ...curve.slice(0, -2),
    '-subj',
    '/CN=server',
    '-keyout',
    at('server.key'),
    '-out',
    at('server.csr'),
  );
  const alt = names.map((n) => (/^[\d.]+$|:/.test(n) ? `IP:${n}` : `DNS:${n}`)).join(',');
  run(
    'openssl',
    'x509',
    '-req',
    '-in',
    at('server.csr'),
    '-CA',
    at('ca.pem'),
    '-CAkey',
    at('ca.key'),
    '-set_serial',
    '2',
    '-days',
    '2',
    '-out',
    at('server.pem'),
    '-extfile',
    extensions('server.ext', [
      `subjectAltName=${alt}`,
      'basicConstraints=critical,CA:FALSE',
      'keyUsage=critical,digitalSignature',
      'extendedKeyUsage=serverAuth',
    ]),
  );
  return { ca: at('ca.pem'), cert: at('server.pem'), key: at('server.key') };
}

/** A home whose Chromium trusts the authority; to be HOME in its environment. */
export function chromiumHome(dir, ns, ca) {
  const home = path.join(dir, `home-${ns ?? 'here'}`);
  trust(path.join(home, '.pki', 'nssdb'), ca);
  return home;
}

/** A profile of Firefox that trusts the authority. */
export function firefoxProfile(dir, ca) {
  const profile = path.join(dir, 'firefox-profile');
  trust(profile, ca);
  return profile;
}

function trust(db, ca) {
  fs.mkdirSync(db, { recursive: true });
  run('certutil', '-N', '-d', `sql:${db}`, '--empty-password');
  run('certutil', '-A', '-d', `sql:${db}`, '-n', 'Laboratory CA', '-t', 'C,,', '-i', ca);
}
