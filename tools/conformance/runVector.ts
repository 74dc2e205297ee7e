// Plays one vector to a client of Auth and compares what the client did with what the vector expects. Hides the fake Auth.
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { type AuthCall, type FakeAuth, startFakeAuth } from '../../tests/support/fakeAuth.ts'
import { callProblems, resultProblems } from './checks.ts'
import { type Places, playAnswer } from './playAnswer.ts'
import type { Answer, Need, Sent, Step, Vector } from './vectors.ts'

/** Names and values, as received. */
export type HeaderLines = [string, string][]

export interface ClientRequest {
  headers: HeaderLines
  /** The guards that it must pass, one behind the other. Without any it needs a live token. */
  needs: Need[]
}

/** What a service that uses the client would answer to a request. */
export interface ClientAnswer {
  status: number
  /** Names are in lower case. */
  headers: Record<string, string>
  /** With status 200: the verdict, if the client shows it. */
  admission?: Record<string, unknown>
  /** With another status: the problem document, if the client makes one. */
  problem?: Record<string, unknown>
}

/** A client of Auth, seen from the outside. */
export interface ClientUnderTest {
  /** Makes a client of the Auth at `url`; a client made before may be kept if the address is the same. */
  open(auth: { url: string; key: string }): Promise<void>
  /** Requests that arrive together. Each of the promises resolves to the answer to one of them. */
  send(requests: ClientRequest[]): Promise<ClientAnswer>[]
}

export interface Result {
  headers: HeaderLines
  answer: ClientAnswer
  tookMs: number
}

export interface VectorRunner {
  /** Everything that is wrong, as sentences. */
  run(vector: Vector, client: ClientUnderTest): Promise<string[]>
  close(): Promise<void>
}

export interface RunnerOptions {
  key: string
  /** Added to every time limit, for slow machines. */
  slackMs: number
}

export async function openVectorRunner({ key, slackMs }: RunnerOptions): Promise<VectorRunner> {
  const auth = await startFakeAuth()
  const elsewhere = await startFakeAuth()
  const places = { self: auth.url, elsewhere: elsewhere.url }

  return {
    async run(vector, client) {
      auth.reset()
      let callCount = 0
      auth.behave(call => void playAnswer(call, vector.given[callCount++] ?? {}, places))
      await client.open({ url: auth.url, key })
      const connectionsBefore = auth.connectionCount()
      const sending: Promise<Result>[][] = []
      for (const step of vector.when) await perform(step, { auth, places, client, sending })
      const results = await Promise.all(sending.map(entry => Promise.all(entry)))
      const connections = auth.connectionCount() - connectionsBefore
      await auth.listen()
      return [
        ...results.flatMap((entry, i) => resultProblems(entry, vector.then.results[i], slackMs)),
        ...callProblems(auth, { key, results: results.flat(), expected: vector.then, connections }),
        ...(elsewhere.connectionCount() > 0 ? ['The client followed a redirect.'] : []),
        ...(results.length === vector.then.results.length ? [] : ['The vector has not one result for each request.']),
      ]
    },

    async close() {
      auth.reset()
      await Promise.all([auth.stop(), elsewhere.stop()])
    },
  }
}

interface Stage {
  auth: FakeAuth
  places: Places
  client: ClientUnderTest
  /** One list for each entry of each `send`. */
  sending: Promise<Result>[][]
}

async function perform(step: Step, { auth, places, client, sending }: Stage): Promise<void> {
  if ('send' in step) {
    const entries = step.send.map(requestsOf)
    const startedAt = performance.now()
    const answers = client.send(entries.flat())
    for (const entry of entries) {
      sending.push(
        entry.map(async ({ headers }) => {
          const answer = await (answers.shift() as Promise<ClientAnswer>)
          return { headers, answer, tookMs: performance.now() - startedAt }
        }),
      )
    }
    for (const one of sending.flat()) one.catch(() => {}) // a failure is reported when the results are awaited
  } else if ('await' in step) {
    if (step.await === 'results') await Promise.all(sending.flat())
    else if ('calls' in step.await)
      await inTime(auth.called(step.await.calls), `call ${step.await.calls} did not arrive`)
    else await someOf(sending.flat(), step.await.results)
  } else if ('answer' in step) {
    // A request without a token needs no call: its result shows that the client has started the requests before it.
    await Promise.all(client.send([{ headers: [], needs: [] }]))
    await playAnswer(auth.calls[step.answer - 1] as AuthCall, step.with ?? {}, places)
  } else if ('sleepMs' in step) {
    await sleep(step.sleepMs)
  } else if ('unsolicited' in step) {
    await sendUnsolicited(auth.calls.at(-1) as AuthCall, step.unsolicited, places)
  } else if (step.auth === 'stop') {
    await auth.stop()
  } else if (step.auth === 'listen') {
    await auth.listen()
  } else {
    await inTime(auth.disconnectIdle(), 'the client kept a connection that Auth had closed')
  }
}

/** Writes an answer that no call asked for; the client must then hang up. */
async function sendUnsolicited(last: AuthCall, answer: Answer, places: Places): Promise<void> {
  const hungUp = once(last.socket, 'close')
  await playAnswer(last, answer, places)
  await inTime(hungUp, 'the client kept a connection with an answer that it had not asked for')
}

/** Resolves once `count` of the promises have resolved. */
function someOf(promises: Promise<unknown>[], count: number): Promise<void> {
  let missing = count
  return new Promise((resolve, reject) => {
    for (const one of promises) one.then(() => --missing === 0 && resolve(), reject)
  })
}

async function inTime(event: Promise<unknown>, otherwise: string): Promise<void> {
  const abort = new AbortController()
  const late = sleep(5000, null, { signal: abort.signal }).then(
    () => Promise.reject(new Error(otherwise)),
    () => {},
  )
  await Promise.race([event, late])
  abort.abort()
}

/** The requests that an entry stands for. */
function requestsOf(sent: Sent): ClientRequest[] {
  if (typeof sent === 'string') return [{ headers: bearer(sent), needs: [] }]
  if ('headers' in sent) return [{ headers: sent.headers, needs: [] }]
  const { token, times = 1, length = 0, needs = [] } = sent
  return Array.from({ length: times }, (_, i) => ({
    headers: bearer(token.replaceAll('{i}', String(i)).padEnd(length, '-')),
    needs,
  }))
}

const bearer = (token: string): HeaderLines => [['authorization', `Bearer ${token}`]]
