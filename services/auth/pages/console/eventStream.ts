// Reads /events with fetch, since EventSource cannot send Authorization, and reconnects whenever the stream ends. Hides the
// pauses between attempts, and the detection of a stream that has gone silent.
import type { StreamEvent } from '../../observability/streamEvents.ts'
import { createEventParser } from './eventParser.ts'

const maxSilenceMs = 40_000 // Auth sends something every 15 s
const maxPauseMs = 15_000

export type StreamState =
  | { name: 'connecting' | 'live' | 'refused' }
  | { name: 'waiting'; reason: string; seconds: number }

export interface EventStreamOptions {
  adminKey: string
  onEvent: (event: StreamEvent) => void
  /** `refused` is the last state: the key is wrong. */
  onState: (state: StreamState) => void
}

/** Returns a function that closes the stream. */
export function openEventStream({ adminKey, onEvent, onState }: EventStreamOptions): () => void {
  let isOver = false
  let failures = 0
  let abort = new AbortController()

  async function read() {
    abort = new AbortController()
    onState({ name: 'connecting' })
    const answer = await fetch('events', {
      headers: { Authorization: `Bearer ${adminKey}` },
      cache: 'no-store',
      signal: abort.signal,
    })
    if (answer.status === 401) {
      isOver = true
      onState({ name: 'refused' })
      return
    }
    if (!answer.ok || answer.body === null) throw new Error(`/events answered ${answer.status}`)
    onState({ name: 'live' })
    failures = 0
    let silence = setTimeout(() => abort.abort(), maxSilenceMs)
    const parse = createEventParser(event => onEvent(event as StreamEvent))
    const decoder = new TextDecoder()
    const reader = answer.body.getReader()
    try {
      for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
        clearTimeout(silence)
        silence = setTimeout(() => abort.abort(), maxSilenceMs)
        parse(decoder.decode(chunk.value, { stream: true }))
      }
    } finally {
      clearTimeout(silence)
    }
    throw new Error('the stream ended')
  }

  async function readForEver() {
    while (!isOver) {
      const reason = await read().then(
        () => '',
        error => (error instanceof Error ? error.message : String(error)),
      )
      const pauseMs = Math.min(1000 * 2 ** failures++, maxPauseMs)
      for (let leftMs = pauseMs; leftMs > 0 && !isOver; leftMs -= 1000) {
        onState({ name: 'waiting', reason, seconds: Math.ceil(leftMs / 1000) })
        await new Promise(resolve => setTimeout(resolve, Math.min(1000, leftMs)))
      }
    }
  }

  void readForEver()
  return () => {
    isOver = true
    abort.abort()
  }
}
