// Base62 with digits first, then upper case, then lower case.

export const base62 = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'

const values = Uint8Array.from({ length: 128 }, (_, code) => Math.max(0, base62.indexOf(String.fromCharCode(code))))

/** Exactly `length` characters; higher digits are cut off. */
export function writeBase62(value: number, length: number): string {
  let digits = ''
  for (let rest = value; digits.length < length; rest = Math.floor(rest / 62)) digits = base62[rest % 62] + digits
  return digits
}

/** Reads the characters from `from` up to but not including `to`. A character that is no digit counts as 0. */
export function readBase62(text: string, from: number, to: number): number {
  let value = 0
  for (let i = from; i < to; i++) value = value * 62 + (values[text.charCodeAt(i)] as number)
  return value
}
