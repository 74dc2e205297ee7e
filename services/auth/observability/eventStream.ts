// Events of tokens, and of what users may do, as a text stream (server-sent events). Every reader receives the same frame
// every 100 ms, with repeated events merged and counted. Hides the limits on readers, frame size, unread bytes per reader and
// tokens watched for expiry.
import { Readable } from 'node:stream'
import type { AuthEvent } from './events.ts'
import type { MergedEventName, StreamEventData } from './streamEvents.ts'

export interface EventStreamOptions {
  /** Epoch milliseconds. */
  now: () => number
  /** After this long without events, sends a comment: connections that are idle for a minute get closed. */
  heartbeatMs?: number
}

export interface EventStream {
  /** Does nothing while there are no readers. */
  publish(event: AuthEvent): void
  /** Null if there are too many readers already. The caller must destroy the stream when it is no longer needed. */
  open(): Readable | null
  /** Ends the streams of all readers. After that `open` returns null. */
  close(): void
}

/** An event of the stream, before repeated ones are merged. */
type Told = {
  [Name in MergedEventName]: { name: Name; subject: string; data: StreamEventData[Name] }
}[MergedEventName]

interface Merged {
  name: MergedEventName
  data: Told['data'] & { at: number; count: number }
}

interface Reader {
  stream: Readable
  /** Events that this reader was too slow for, not yet reported to it. */
  dropped: number
}

const frameMs = 100
const maxReaders = 16
const maxPerFrame = 500 // distinct events; 5,000 a second is more than a person can read
const maxWaitingBytes = 256 * 1024 // per reader, in addition to the socket's own buffer
const maxWatched = 10_000

export function createEventStream({ now, heartbeatMs = 15_000 }: EventStreamOptions): EventStream {
  const readers = new Set<Reader>()
  let frame = new Map<string, Merged>()
  let left = 0
  /** Tokens seen while there are readers, oldest first. Their expiry is found here, as no event is emitted for it. */
  const watched = new Map<string, { userId: string | null; expiresAt: number }>()
  let timer: NodeJS.Timeout | null = null
  let quietFrames = 0
  let closed = false

  function publish(event: AuthEvent) {
    if (readers.size === 0) return
    follow(event)
    const told = toldOf(event)
    if (told !== null) add(told)
  }

  /** Keeps `watched` up to date. */
  function follow(event: AuthEvent): void {
    switch (event.type) {
      case 'issued':
      case 'renewed':
        watch(event.tokenId, event.userId, event.expiresAt)
        break
      case 'slid':
        if (event.isConsumed) watched.delete(event.tokenId)
        else watch(event.tokenId, event.userId, event.expiresAt)
        break
      case 'revoked':
        watched.delete(event.tokenId)
        break
      case 'sessions_revoked':
        for (const [id, { userId }] of watched) if (userId === event.userId && id !== event.keep) watched.delete(id)
    }
  }

  /** Merges the events of one name and subject within a frame: keeps the last event and the count of all. */
  function add({ name, subject, data }: Told): void {
    const key = `${name} ${subject}`
    const count = (frame.get(key)?.data.count ?? 0) + 1
    if (count === 1 && frame.size >= maxPerFrame) {
      left++
      return
    }
    frame.delete(key) // reinserting it moves it to the position of its latest occurrence
    frame.set(key, { name, data: { at: now(), ...data, count } })
  }

  function watch(id: string, userId: string | null, expiresAt: number): void {
    watched.set(id, { userId, expiresAt })
    if (watched.size <= maxWatched) return
    for (const oldest of watched.keys()) return void watched.delete(oldest)
  }

  function addExpired(): void {
    const at = now()
    for (const [tokenId, { userId, expiresAt }] of watched) {
      if (at < expiresAt) continue
      watched.delete(tokenId)
      add({ name: 'expired', subject: tokenId, data: { tokenId, userId, expiresAt } })
    }
  }

  function sendFrame(): void {
    addExpired()
    const events = [...frame.values()]
    const missing = left
    frame = new Map()
    left = 0
    const happened = events.reduce((sum, { data }) => sum + data.count, missing)
    quietFrames = events.length === 0 ? quietFrames + 1 : 0
    let text = events.map(({ name, data }) => written(name, data)).join('')
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
    publish,

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
      // Sent at once, so that the reader knows the server's time and that it is connected.
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

/** Names every member that the stream has, so that none gets there unnoticed. Null for events that are not in the stream. */
function toldOf(event: AuthEvent): Told | null {
  switch (event.type) {
    case 'issued': {
      const { type, name, tokenId, userId, kind, purpose, expiresAt, scope, parentId } = event
      const data = { tokenId, userId, kind, purpose, expiresAt, scope, name, parentId }
      return { name: type, subject: tokenId, data }
    }
    case 'slid': {
      const { type: name, tokenId, userId, kind, expiresAt, isConsumed } = event
      if (isConsumed) return { name: 'consumed', subject: tokenId, data: { tokenId, userId, kind } }
      return { name, subject: tokenId, data: { tokenId, userId, kind, expiresAt } }
    }
    case 'renewed': {
      const { type: name, tokenId, userId, expiresAt } = event
      return { name, subject: tokenId, data: { tokenId, userId, expiresAt } }
    }
    case 'revoked': {
      const { type: name, tokenId, userId } = event
      return { name, subject: tokenId, data: { tokenId, userId } }
    }
    case 'changed': {
      const { type, name, tokenId, userId, scope, paused, rate, usesLeft } = event
      return { name: type, subject: tokenId, data: { tokenId, userId, scope, paused, rate, usesLeft, name } }
    }
    case 'sessions_revoked': {
      const { type: name, userId, keep } = event
      return { name, subject: userId, data: { userId, keep } }
    }
    case 'roles_changed': {
      const { type: name, userId, roles } = event
      return { name, subject: userId, data: { userId, roles } }
    }
    case 'rate_changed': {
      const { type: name, userId, rate } = event
      return { name, subject: userId, data: { userId, rate } }
    }
    case 'user_paused':
    case 'user_resumed':
      return { name: event.type, subject: event.userId, data: { userId: event.userId } }
    case 'refused': {
      const { type: name, tokenId, reason } = event
      return { name, subject: `${tokenId} ${reason}`, data: { tokenId, reason } }
    }
    case 'canary_used': {
      const { type, name, tokenId, userId, useCount } = event
      return { name: type, subject: tokenId, data: { tokenId, userId, name, useCount } }
    }
    // The attempted username is omitted, since people sometimes type their password there.
    case 'login_succeeded':
      return { name: event.type, subject: event.userId, data: { userId: event.userId } }
    case 'login_failed': {
      const { type: name, userId, reason } = event
      return { name, subject: `${userId}`, data: { userId, reason } }
    }
    case 'swept': {
      const { type: name, removed, durationMs } = event
      return { name, subject: '', data: { removed, durationMs } }
    }
    default:
      return null
  }
}

function written(name: keyof StreamEventData, data: object): string {
  return `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`
}
