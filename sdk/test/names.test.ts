/// <reference types="vite/client" />
import { describe, expect, it } from 'vitest';

const raw = (files: Record<string, unknown>) => Object.values(files).join('\n');
const sources = raw(import.meta.glob(['../src/**/*.ts', '!../src/socketio.ts'], { query: '?raw', import: 'default', eager: true }));
const names = raw(import.meta.glob('../internal-names.txt', { query: '?raw', import: 'default', eager: true })).trim().split('\n');
/** What the SDK shares names with: browsers, apps, and the wire. */
const outside: Record<string, string> = {
  browsers: raw(import.meta.glob(['../node_modules/**/lib/lib.*.d.ts'], { query: '?raw', import: 'default', eager: true })),
  apps: raw(import.meta.glob('../types/knowledgetalk.d.ts', { query: '?raw', import: 'default', eager: true })),
  wire: raw(import.meta.glob(['../../internal/protocol/testdata/*.json', '../src/signaling/messages.ts'], { query: '?raw', import: 'default', eager: true })),
};

/** The build shortens these names wherever they stand: one that somebody else knows too would break what they share. */
describe('names that the build shortens', () => {
  it('are of members that the SDK declares, each once, in order', () => {
    expect(names).toEqual([...new Set(names)].sort());
    const declared = new Set([...sources.matchAll(/^ +(?:(?:private|protected|static|abstract|async|get|readonly|override) )*(\w+)\??(?:[(:<;]| =)|(?:private|protected) (?:readonly )?(\w+)/gm)].map((m) => m[1] ?? m[2]));
    expect(names.filter((name) => !declared.has(name))).toEqual([]);
  });

  /** Declared private, and reached by `this` alone: then it does not matter who else has something of that name. */
  const code = sources.replace(/^\s*(\*|\/\/|\/\*).*$/gm, '').replace(/\s\/\/ .*$/gm, '');
  const hidden = (name: string) => new RegExp(`private (readonly |async |static )*${name}\\b`).test(code)
    && !new RegExp(`(?<!this\\.)(?<!private (?:readonly |async |static |override |get |set )*)\\b${name}\\b`).test(code);

  it.each(Object.keys(outside))('are none of %s', (who) => {
    const text = outside[who]!;
    expect(text.length).toBeGreaterThan(1_000);
    const known = new Set([...text.matchAll(/\b([A-Za-z]\w*)\b(?=["']?\s*[?(:<])/g)].map((m) => m[1]));
    expect(names.filter((name) => known.has(name) && !hidden(name))).toEqual([]);
  });

  it('are never written as text', () => {
    expect(names.filter((name) => sources.includes(`'${name}'`))).toEqual([]);
  });
});
