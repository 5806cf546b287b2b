/**
 * Names that the build shortens (private.txt): each is private to its class, reached by `this` alone, and nobody
 * outside can know it.
 */
import { expect, it } from 'vitest';

type Texts = Record<string, string>;
const files = import.meta.glob(['../src/**/*.ts', '../src/**/*.mts'], { query: '?raw', import: 'default', eager: true }) as Texts;
const [list = ''] = Object.values(import.meta.glob('../private.txt', { query: '?raw', import: 'default', eager: true }) as Texts);
const [types = ''] = Object.values(import.meta.glob('../types/*.d.ts', { query: '?raw', import: 'default', eager: true }) as Texts);

const code = Object.values(files).join('\n').replace(/^\s*(\*|\/\/|\/\*).*$/gm, '').replace(/\s\/\/ .*$/gm, '');
const names = list.trim().split('\n');

/** The name where it is neither declared private nor reached by `this`: an interface, an object, a text. */
const elsewhere = (name: string) => new RegExp(
  `(?<!this\\.)(?<!private (?:readonly |async |static |override )*)(?<!private (?:get|set) )\\b${name}\\b`,
).exec(code);

it('are many, each once, in order', () => {
  expect(names.length).toBeGreaterThan(50);
  expect(names).toEqual([...new Set(names)].sort());
});

it.each(names)('%s is private', (name) => {
  expect(code).toMatch(new RegExp(`private (readonly |async |static )*${name}\\b`));
  expect(elsewhere(name)?.input.slice(elsewhere(name)!.index - 40, elsewhere(name)!.index + 40)).toBeUndefined();
  expect(types).not.toMatch(new RegExp(`\\b${name}\\b`));
});
