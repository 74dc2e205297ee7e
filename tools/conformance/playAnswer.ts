// Turns an answer of a vector into bytes on the fake Auth's connection. Hides framing, truncation and substitutions.
import { setTimeout as sleep } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import type { Verdict } from '../../packages/client/contract.ts'
import { type AuthCall, admissionOf, drip, pour, verdictFor } from '../../tests/support/fakeAuth.ts'
import type { Answer } from './vectors.ts'

/** Addresses that a vector can name. */
export interface Places {
  self: string
  elsewhere: string
}

/** Answers the call. A held answer is left to the caller. */
export async function playAnswer(call: AuthCall, answer: Answer, places: Places): Promise<void> {
  if (answer.hold) return
  if (answer.delayMs !== undefined) await sleep(answer.delayMs)
  const { socket } = call
  if (socket.destroyed) return
  const { bytes, bodyAt } = compose(call, answer, places)
  if (answer.drip !== undefined) {
    const from = answer.drip === 'body' ? bodyAt : 0
    if (from > 0) socket.write(bytes.subarray(0, from))
    drip(socket, bytes.subarray(from), 200)
    return
  }
  const isUnfinished = answer.cut !== undefined || answer.pour !== undefined || answer.end !== undefined
  if (isUnfinished) {
    await new Promise(resolve => socket.write(bytes, resolve))
    if (answer.pour) pour(socket, repeated(answer.pour.text), answer.pour.bytes)
    if (answer.end === 'close') socket.end()
    if (answer.end === 'reset') socket.resetAndDestroy()
    return
  }
  call.send(bytes)
}

/** At least 64 KiB of the text. */
function repeated(text: string): Buffer {
  return Buffer.from(text.repeat(Math.ceil(65_536 / text.length)))
}

interface Composed {
  bytes: Buffer
  /** Where the body begins. */
  bodyAt: number
}

function compose(call: AuthCall, answer: Answer, places: Places): Composed {
  const body = bodyOf(call.tokens, answer)
  const fill = (text: string) =>
    text
      .replaceAll('{self}', places.self)
      .replaceAll('{elsewhere}', places.elsewhere)
      .replaceAll('{requestId}', call.requestId)
      .replaceAll('{length}', String(body.length))
      .replaceAll('{length-1}', String(body.length - 1))
      .replaceAll('{body}', body.toString())
      .replaceAll('{answer}', () => call.compose({ body: { verdicts: call.tokens.map(admissionOf) } }).toString())
  if (answer.raw !== undefined) return { bytes: cut(Buffer.from(fill(answer.raw)), answer.cut), bodyAt: 0 }
  const headers: Record<string, string | string[] | undefined> = {
    ...(answer.gzip && { 'content-encoding': 'gzip' }),
    ...(answer.framing === 'chunked' && { 'content-length': undefined, 'transfer-encoding': 'chunked' }),
    ...(answer.framing === 'close' && { 'content-length': undefined, connection: 'close' }),
  }
  for (const [name, value] of Object.entries(answer.headers ?? {})) {
    headers[name] = value === null ? undefined : Array.isArray(value) ? value.map(fill) : fill(value)
  }
  const framed = answer.framing === 'chunked' ? inChunks(body) : body
  const whole = call.compose({ ...(answer.status && { status: answer.status }), headers, body: framed })
  const before = Buffer.from(fill(answer.before ?? ''))
  const bytes = Buffer.concat([before, whole, Buffer.from(fill(answer.after ?? ''))])
  return { bytes: cut(bytes, answer.cut), bodyAt: before.length + whole.length - framed.length }
}

function bodyOf(tokens: string[], answer: Answer): Buffer {
  const verdicts = answer.verdicts ?? tokens.map(token => change(verdictFor(token), answer.admission))
  const json = JSON.stringify('body' in answer ? answer.body : { verdicts, ...answer.members })
  const text = (answer.text?.replaceAll('{body}', json) ?? json) + ' '.repeat(answer.padBytes ?? 0)
  return answer.gzip ? gzipSync(text) : Buffer.from(text)
}

function change(verdict: Verdict, { set = {}, remove = [] }: NonNullable<Answer['admission']> = {}): object {
  if (!verdict.authenticated) return verdict
  const members = Object.entries({ ...verdict, ...set })
  return Object.fromEntries(members.filter(([name]) => !remove.includes(name)))
}

function inChunks(body: Buffer): Buffer {
  const half = Math.ceil(body.length / 2)
  const chunk = (part: Buffer) =>
    Buffer.concat([Buffer.from(`${part.length.toString(16)}\r\n`), part, Buffer.from('\r\n')])
  return Buffer.concat([chunk(body.subarray(0, half)), chunk(body.subarray(half)), Buffer.from('0\r\n\r\n')])
}

function cut(bytes: Buffer, at = bytes.length): Buffer {
  return bytes.subarray(0, at)
}
