// The conformance vectors of packages/client/conformance: their types, and how they are read. The README there describes
// every member; schema.json checks them.
import { globSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'

export interface Vector {
  title: string
  /** How Auth answers the first call, the second and so on. Every further call gets the correct answer. */
  given: Answer[]
  when: Step[]
  then: Then
}

/** The differences from the correct answer. */
export interface Answer {
  /** No answer until a step `answer`. */
  hold?: true
  delayMs?: number
  status?: number
  /** Null leaves a header out; a list sends it once for each value. */
  headers?: Record<string, string | string[] | null>
  /** Changes each admission. */
  admission?: { set?: Record<string, unknown>; remove?: string[] }
  /** Replaces the verdicts. */
  verdicts?: unknown
  /** Members beside `verdicts`. */
  members?: Record<string, unknown>
  /** Replaces the body. */
  body?: unknown
  /** Replaces the body with text that may not be JSON. `{body}` is the body that it replaces. */
  text?: string
  /** Spaces behind the body. */
  padBytes?: number
  gzip?: true
  framing?: 'chunked' | 'close'
  /** Replaces head and body. */
  raw?: string
  /** Bytes in front of the head, for example an interim answer. */
  before?: string
  /** Bytes behind the body. `{answer}` is the correct answer with every token admitted. */
  after?: string
  /** Only this many bytes are sent; if negative, all but this many. */
  cut?: number
  /** What follows the last byte. */
  end?: 'close' | 'reset'
  /** One byte every 200 ms: all bytes, or those of the body. */
  drip?: 'answer' | 'body'
  /** After the answer, `text` is repeated until `bytes` have been sent or the client disconnects. */
  pour?: { text: string; bytes: number }
}

export type Step =
  | { send: Sent[] }
  | { await: 'results' | { calls: number } | { results: number } }
  | { answer: number; with?: Answer }
  | { sleepMs: number }
  | { auth: 'stop' | 'listen' | 'disconnect' }
  | { unsolicited: Answer }

/** A token for `Authorization: Bearer`, or header lines. */
export type Sent =
  | string
  /** `{i}` in the token counts from 0 to `times - 1`; the token is filled with dashes up to `length`. */
  | { token: string; times?: number; length?: number; needs?: Need[] }
  | { headers: [string, string][] }

/** A guard that the request must pass. All of the names are needed; with `shadow` it refuses nothing. */
export type Need = ({ role: string[] } | { scope: string[] }) & { shadow?: true }

export type Outcome =
  | 'admitted'
  | 'refused'
  | 'insufficient scope'
  | 'no token'
  | 'bad request'
  | 'limited'
  | 'unavailable'
  | 'not admitted'

export interface Expected {
  is: Outcome | Outcome[]
  /** Members that the admission must have, beside those of the fake Auth. A member that is an object may have more. */
  admission?: Record<string, unknown>
  /** The scope that the challenge names. */
  scope?: string
  withinMs?: number
  notBeforeMs?: number
}

export interface Then {
  /** One for each entry of each `send`, in order. */
  results: (Outcome | Outcome[] | Expected)[]
  /** The tokens of each call in order, or the sizes of the calls, largest first, or their maximum number. */
  calls: string[][] | { sizes: number[] } | { atMost: number }
  maxInFlight?: number
  maxConnections?: number
  /** Auth has written at most this many bytes on one connection when the client disconnects. */
  maxAnswerBytes?: number
}

interface VectorFile {
  defaults?: Partial<Vector>
  vectors: (Partial<Vector> & { title: string })[]
}

export const vectorsFolder = join(import.meta.dirname, '../../packages/client/conformance')

/** The vectors by the name of their file, without `.json`. */
export function loadVectors(): Map<string, Vector[]> {
  const files = globSync(join(vectorsFolder, '*.json')).filter(file => basename(file) !== 'schema.json')
  return new Map(
    files.sort().map(file => {
      const { defaults, vectors } = JSON.parse(readFileSync(file, 'utf8')) as VectorFile
      return [basename(file, '.json'), vectors.map(vector => ({ given: [], ...defaults, ...vector }) as Vector)]
    }),
  )
}
