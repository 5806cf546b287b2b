import { invalid, missing, type Failure } from '../errors';
import { truth } from './messages';

export const absent = (x: unknown): x is undefined | null | '' =>
  x === undefined || x === null || x === '';

/** A failure carries a code, everything else is a value. */
export const isFailure = (x: unknown): x is Failure =>
  typeof x === 'object' && x !== null && 'code' in x;

/**
 * An id on the wire: 1 to 128 bytes, no control characters. Numbers become text, since apps number
 * rooms and users.
 */
export function id(x: unknown, name: string, call: string): string | Failure {
  if (absent(x)) return missing(name, call);
  return optionalId(x, name) ?? missing(name, call);
}

/** Text of an id that an app may have as a number. */
export const idText = <T>(x: T): T | string => (typeof x === 'number' ? `${x}` : x);

export function optionalId(x: unknown, name: string): string | undefined | Failure {
  if (absent(x)) return undefined;
  const text = idText(x);
  if (
    typeof text !== 'string'
    || text === '__proto__'
    || /[\u0000-\u001f\u007f-\u009f]/.test(text)
    || new TextEncoder().encode(text).length > 128
  ) {
    return invalid(name, 'text of 1 to 128 bytes without control characters');
  }
  return text;
}

/** A license (authKey): any text, the server checks it. */
export function key(x: unknown, call: string): string | Failure {
  if (absent(x)) return missing('authKey', call);
  return typeof x === 'string' ? x : invalid('authKey', 'text');
}

export function optionalText(x: unknown, name: string): string | undefined | Failure {
  if (absent(x)) return undefined;
  if (typeof x !== 'string' && typeof x !== 'number') return invalid(name, 'text');
  return new TextEncoder().encode(`${x}`).length > 256
    ? invalid(name, 'text of at most 256 bytes')
    : `${x}`;
}

export function optionalCapacity(x: unknown): number | undefined | Failure {
  if (absent(x)) return undefined;
  const count = (typeof x === 'string' ? Number(x) : x) as number;
  return Number.isInteger(count) && count >= 1 && count <= 1000
    ? count
    : invalid('capacity', 'a whole number from 1 to 1000');
}

/** A setting that is a count; anything else counts as unset. */
export const wholeNumber = (x: unknown): number | undefined =>
  Number.isInteger(x) && (x as number) >= 0 ? (x as number) : undefined;

/** A boolean, also as text, which form fields deliver. */
export function optionalBoolean(x: unknown, name: string): boolean | undefined | Failure {
  if (absent(x)) return undefined;
  if (truth(x)) return true;
  return x === false || x === 'false' ? false : invalid(name, 'true or false');
}

/** The first failure among checked values. */
export const firstFailure = (...values: unknown[]): Failure | undefined => values.find(isFailure);
