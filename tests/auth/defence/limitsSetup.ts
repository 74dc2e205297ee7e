// Requests and settings that the suites about limits share.
import { ask as send } from '../../support/client.ts'
import { demo } from '../../support/credentials.ts'
import type { LogLine } from '../../support/log.ts'

export const wrong = { ...demo, password: 'not the CANARY' }
export const limits = {
  LOGIN_LIMIT_PER_ADDRESS: '30',
  REGISTRATION_LIMIT_PER_ADDRESS: '10',
  MAIL_LIMIT_PER_ADDRESS: '20',
  GUEST_TOKEN_LIMIT_PER_ADDRESS: '20',
  INVALID_TOKEN_LIMIT_PER_ADDRESS: '8',
  TRUSTED_PROXIES: '1',
}

interface Request {
  from: string
  body?: unknown
  bearer?: string | undefined
  requestId?: string
}

export interface Answer {
  status: number
  headers: Record<string, string>
  text: string
  body: Record<string, string>
  retryAfter: number
}

export async function ask(
  method: string,
  url: string,
  { from, body, bearer, requestId = 'x' }: Request,
): Promise<Answer> {
  const headers = { 'x-forwarded-for': from, 'x-request-id': requestId }
  const answer = await send<Record<string, string>>(method, url, bearer, body, headers)
  return {
    ...answer,
    headers: Object.fromEntries([...answer.headers].filter(([name]) => name !== 'date')),
    retryAfter: Number(answer.headers.get('retry-after')),
  }
}

export function countBy(answers: Answer[]): Record<number, number> {
  const counts: Record<number, number> = {}
  for (const { status } of answers) counts[status] = (counts[status] ?? 0) + 1
  return counts
}

/** The number of password verifications, each of which takes one hash. */
export const hashesIn = (lines: LogLine[]) =>
  lines.filter(({ event }) => /^(login_(failed|succeeded)|password_refused)$/.test(event)).length

export const address = (i: number) => `198.51.${100 + (i >> 8)}.${i & 255}`
export const times = <T>(count: number, make: (i: number) => Promise<T>) =>
  Promise.all(Array.from({ length: count }, (_, i) => make(i)))
