// Clients of fake Auths, and the streams of requests that they send. Hides which clients are open.
import { setTimeout as sleep } from 'node:timers/promises'
import { type AuthClientOptions, openAuthClient } from '../../packages/client/authClient.ts'
import { TokenError } from '../../packages/client/errors.ts'
import { serviceKey } from './credentials.ts'
import { collectLog } from './log.ts'

/** One request: when it began and ended, and what became of it. */
export interface Asked {
  token: string
  beganMs: number
  endedMs: number
  outcome: 'admitted' | 'refused' | 'unavailable'
}

const opened: ReturnType<typeof openAuthClient>[] = []

export async function closeClients(): Promise<void> {
  await Promise.all(opened.splice(0).map(client => client.close()))
}

export function openTestClient(url: AuthClientOptions['url'], options: Partial<AuthClientOptions> = {}) {
  const { log, lines } = collectLog('client')
  const monotonicNow = () => performance.now()
  const client = openAuthClient({ url, key: serviceKey, log, monotonicNow, ...options })
  opened.push(client)
  let count = 0

  async function ask(token = `good-${count++}`): Promise<Asked> {
    const beganMs = performance.now()
    const outcome = await client
      .validate(token, { requestId: token })
      .then(({ verdict }) => (verdict.authenticated ? 'admitted' : 'refused'), outcomeOf)
    return { token, beganMs, endedMs: performance.now(), outcome }
  }

  /** A request every 5 ms, whatever becomes of the earlier ones. */
  async function askFor(durationMs: number): Promise<Asked[]> {
    const asked: Promise<Asked>[] = []
    for (const endMs = performance.now() + durationMs; performance.now() < endMs; await sleep(5)) asked.push(ask())
    return Promise.all(asked)
  }

  return {
    client,
    ask,
    askFor,
    lines,
    /** The events about single Auths, in order, with the URL that they name. */
    events: () =>
      lines
        .filter(({ event }) => event === 'auth_ejected' || event === 'auth_readmitted')
        .map(({ event, auth }) => `${event} ${auth}`),
  }
}

function outcomeOf(error: unknown): 'unavailable' {
  if (error instanceof TokenError && error.code === 'unavailable') return 'unavailable'
  throw error
}

export const unanswered = (asked: Asked[]) => asked.filter(({ outcome }) => outcome === 'unavailable')
