import { describe, expect, it } from 'vitest';
import { explain, failure, unreachable } from '../src/errors';

describe('failures', () => {
  it.each(['410', '429', '500', '504'])('made by the SDK (%s) have a sentence', (code) => {
    expect(failure(code).message).toMatch(/^[A-Z].*\.$/);
    expect(failure(code).message).not.toContain(code);
  });

  it('name an unknown code', () => expect(failure('599').message).toContain('599'));

  it("keep the server's sentence, and do not mix it with our hint", () => {
    expect(failure('401', 'The license ended.')).toEqual({
      code: '401',
      message: 'The license ended.',
    });
    expect(failure('401', 'The license ended.', 'Renew it.')).toEqual({
      code: '401',
      message: 'The license ended.',
      hint: 'Renew it.',
    });
  });

  it('name the server that does not answer', () => {
    expect(unreachable('https://example.org:7102')).toMatchObject({
      code: '504',
      message: 'No answer from https://example.org:7102.',
      hint: expect.any(String),
    });
  });

  it('explain why a call fails', () => {
    expect(explain('not-in-room')).toEqual({
      message: expect.stringMatching(/\.$/),
      hint: expect.stringMatching(/\.$/),
    });
    expect(explain('')).toEqual({ message: '', hint: '' });
  });
});
