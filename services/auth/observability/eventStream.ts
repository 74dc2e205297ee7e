// What happens to tokens, as text for those who read along: a frame every 100 ms, the same for all of them, with what
// happened often counted. Hides the bounds: of readers, of a frame, of what waits for a slow reader, of tokens watched.
import { Readable } from 'node:stream'
import type { AuthEvent } from './events.ts'

export interface EventStreamOptions {
  /** Epoch milliseconds. */
  now: () => number
  /** A comment follows so much silence: a connection on which nothing moves for a minute is cut. */
  heartbeatMs?: number
}

export interface EventStream {
  /** Costs nothing where nobody reads. */
  hear(event: AuthEvent): void
  /** Null where there are too many readers already. Destroy it to be rid of it. */
  open(): Readable | null
  /** Ends every reader's stream; there is no other after that. */
  close(): void
}

interface Told {
  name: string
  data: Record<string, unknown> & { count?: number }
}

interface Reader {
  stream: Readable
  /** Events that it was too slow for, and has not been told of. */
  dropped: number
}

const frameMs = 100
const maxReaders = 16
const maxPerFrame = 500 // different ones; 5,000 a second is more than anybody reads
const maxWaitingBytes = 256 * 1024 // for each reader, beside what its socket holds
const maxWatched = 10_000

export function createEventStream({ now, heartbeatMs = 15_000 }: EventStreamOptions): EventStream {
  const readers = new Set<Reader>()
  let frame = new Map<string, Told>()
  let left = 0
  /** Tokens that were seen since somebody reads, oldest first: nobody else notices when one expires. */
  const watched = new Map<string, { userId: string | null; expiresAt: number }>()
  let timer: NodeJS.Timeout | null = null
  let quietFrames = 0
  let closed = false

  function hear(event: AuthEvent) {
    if (readers.size === 0) return
    switch (event.type) {
      case 'issued': {
        const { tokenId, userId, kind, purpose, expiresAt } = event
        watch(tokenId, userId, expiresAt)
        return add(tokenId, 'issued', { tokenId, userId, kind, purpose, expiresAt })
      }
      case 'slid': {
        const { tokenId, userId, kind, expiresAt } = event
        if (kind === 'single-use') {
          watched.delete(tokenId)
          return add(tokenId, 'consumed', { tokenId, userId, kind })
        }
        watch(tokenId, userId, expiresAt)
        return add(tokenId, 'slid', { tokenId, userId, kind, expiresAt })
      }
      case 'renewed': {
        const { tokenId, userId, expiresAt } = event
        watch(tokenId, userId, expiresAt)
        return add(tokenId, 'renewed', { tokenId, userId, expiresAt })
      }
      case 'revoked':
        watched.delete(event.tokenId)
        return add(event.tokenId, 'revoked', { tokenId: event.tokenId, userId: event.userId })
      case 'sessions_revoked': {
        const { userId, keep } = event
        for (const [id, token] of watched) if (token.userId === userId && id !== keep) watched.delete(id)
        return add(userId, 'sessions_revoked', { userId, keep })
      }
      case 'refused': {
        const { tokenId, reason } = event
        return add(`${tokenId} ${reason}`, 'refused', { tokenId, reason })
      }
      case 'login_succeeded':
      case 'login_failed':
        // Not which name failed: people type passwords there.
        return add(`${event.userId}`, event.type, {
          userId: event.userId,
          ...(event.type === 'login_failed' && { reason: event.reason }),
        })
      case 'swept':
        return add('', 'swept', { removed: event.removed, durationMs: event.durationMs })
    }
  }

  /** One event for each `subject` and frame: the last, and how many there were. */
  function add(subject: string, name: string, data: Record<string, unknown>): void {
    const key = `${name} ${subject}`
    const count = (frame.get(key)?.data.count ?? 0) + 1
    if (count === 1 && frame.size >= maxPerFrame) {
      left++
      return
    }
    frame.delete(key) // it is told in the place of the last
    frame.set(key, { name, data: { at: now(), ...data, count } })
  }

  function watch(id: string, userId: string | null, expiresAt: number): void {
    watched.set(id, { userId, expiresAt })
    if (watched.size <= maxWatched) return
    for (const oldest of watched.keys()) return void watched.delete(oldest)
  }

  function tellExpired(): void {
    const at = now()
    for (const [tokenId, { userId, expiresAt }] of watched) {
      if (at < expiresAt) continue
      watched.delete(tokenId)
      add(tokenId, 'expired', { tokenId, userId, expiresAt })
    }
  }

  function sendFrame(): void {
    tellExpired()
    const told = [...frame.values()]
    const missing = left
    frame = new Map()
    left = 0
    const happened = told.reduce((sum, { data }) => sum + (data.count as number), missing)
    quietFrames = told.length === 0 ? quietFrames + 1 : 0
    let text = told.map(({ name, data }) => written(name, data)).join('')
    if (missing > 0) text += written('dropped', { count: missing })
    if (quietFrames * frameMs >= heartbeatMs) {
      quietFrames = 0
      text = ':\n\n'
    }
    if (text === '') return
    for (const reader of readers) {
      if (reader.stream.readableLength + text.length > maxWaitingBytes) {
        reader.dropped += happened
        continue
      }
      if (reader.dropped > 0) reader.stream.push(written('dropped', { count: reader.dropped }))
      reader.dropped = 0
      reader.stream.push(text)
    }
  }

  return {
    hear,

    open() {
      if (closed || readers.size >= maxReaders) return null
      const reader: Reader = { stream: new Readable({ read() {} }), dropped: 0 }
      reader.stream.once('close', () => {
        readers.delete(reader)
        if (readers.size > 0) return
        if (timer) clearInterval(timer)
        timer = null
        frame.clear()
        watched.clear()
      })
      // At once, so that a reader knows that it is heard, and what time it is here.
      reader.stream.push(`retry: 1000\n\n${written('hello', { at: now(), frameMs })}`)
      readers.add(reader)
      timer ??= setInterval(sendFrame, frameMs).unref()
      return reader.stream
    },

    close() {
      closed = true
      sendFrame()
      for (const { stream } of readers) stream.push(null)
    },
  }
}

function written(name: string, data: Record<string, unknown>): string {
  return `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`
}
