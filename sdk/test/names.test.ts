/// <reference types="vite/client" />
import { describe, expect, it } from 'vitest';

const join = (files: Record<string, unknown>) => Object.values(files).join('\n');
const sources = join(
  import.meta.glob(['../src/**/*.ts', '!../src/socketio.ts'], {
    query: '?raw',
    import: 'default',
    eager: true,
  }),
);
const names = join(
  import.meta.glob('../internal-names.txt', { query: '?raw', import: 'default', eager: true }),
)
  .trim()
  .split('\n');
/** With whom the SDK shares names: browsers, apps, and the wire. */
const outside: Record<string, string> = {
  browsers: join(
    import.meta.glob(['../node_modules/**/lib/lib.*.d.ts'], {
      query: '?raw',
      import: 'default',
      eager: true,
    }),
  ),
  apps: join(
    import.meta.glob('../types/knowledgetalk.d.ts', {
      query: '?raw',
      import: 'default',
      eager: true,
    }),
  ),
  wire: join(
    import.meta.glob(['../../internal/protocol/testdata/*.json', '../src/signaling/messages.ts'], {
      query: '?raw',
      import: 'default',
      eager: true,
    }),
  ),
};

/**
 * The build shortens these names everywhere: a name that a browser, an app or the wire uses too
 * would break.
 */
describe('names that the build shortens', () => {
  it('are members that the SDK declares, sorted and unique', () => {
    expect(names).toEqual([...new Set(names)].sort());
    const modifiers = '(?:(?:private|protected|static|abstract|async|get|readonly|override) )*';
    const member = `^ +${modifiers}(\\w+)\\??(?:[(:<;]| =)`;
    const parameter = '(?:private|protected) (?:readonly )?(\\w+)';
    const found = sources.matchAll(new RegExp(`${member}|${parameter}`, 'gm'));
    const declared = new Set([...found].map((m) => m[1] ?? m[2]));
    expect(names.filter((name) => !declared.has(name))).toEqual([]);
  });

  /** A private name reached through `this` alone may exist elsewhere. */
  const code = sources.replace(/^\s*(\*|\/\/|\/\*).*$/gm, '').replace(/\s\/\/ .*$/gm, '');
  const hidden = (name: string) =>
    new RegExp(`private (readonly |async |static )*${name}\\b`).test(code)
    && !new RegExp(
      `(?<!this\\.)(?<!private (?:readonly |async |static |override |get |set )*)\\b${name}\\b`,
    ).test(code);

  it.each(Object.keys(outside))('are not used by %s', (who) => {
    const text = outside[who]!;
    expect(text.length).toBeGreaterThan(1_000);
    const known = new Set(
      [...text.matchAll(/\b([A-Za-z]\w*)\b(?=["']?\s*[?(:<])/g)].map((m) => m[1]),
    );
    expect(names.filter((name) => known.has(name) && !hidden(name))).toEqual([]);
  });

  it('are never written as strings', () => {
    expect(names.filter((name) => sources.includes(`'${name}'`))).toEqual([]);
  });
});
