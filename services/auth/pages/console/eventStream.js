// Reads /events with fetch (EventSource sends no Authorization), and again whenever it breaks off. Hides the parser of
// server-sent events, the pauses between tries, and the watch for a stream that has gone silent.
const silentForMs = 40_000 // Auth says something every 15 s
const longestPauseMs = 15_000

/** @typedef {{ name: string, data: Record<string, unknown> & { at: number, count?: number } }} AuthEvent */
/** @typedef {{ name: 'connecting' | 'live' | 'waiting' | 'refused', why?: string, seconds?: number }} StreamState */

/**
 * @param {object} options
 * @param {string} options.key
 * @param {(event: AuthEvent) => void} options.onEvent
 * @param {(state: StreamState) => void} options.onState
 * @returns {() => void} Ends it.
 */
export function openEvents({ key, onEvent, onState }) {
  let isOver = false
  let failures = 0
  let abort = new AbortController()

  async function read() {
    abort = new AbortController()
    onState({ name: 'connecting' })
    const answer = await fetch('events', {
      headers: { Authorization: `Bearer ${key}` },
      cache: 'no-store',
      signal: abort.signal,
    })
    if (answer.status === 401) {
      isOver = true
      onState({ name: 'refused', why: 'This is not the key of an operator.' })
      return
    }
    if (!answer.ok || answer.body === null) throw new Error(`/events answered ${answer.status}`)
    onState({ name: 'live' })
    failures = 0
    let silence = setTimeout(() => abort.abort(), silentForMs)
    const parse = eventParser(onEvent)
    const decoder = new TextDecoder()
    const reader = answer.body.getReader()
    try {
      for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
        clearTimeout(silence)
        silence = setTimeout(() => abort.abort(), silentForMs)
        parse(decoder.decode(chunk.value, { stream: true }))
      }
    } finally {
      clearTimeout(silence)
    }
    throw new Error('the stream ended')
  }

  async function goOn() {
    while (!isOver) {
      const why = await read().then(
        () => '',
        error => (error instanceof Error ? error.message : String(error)),
      )
      if (isOver) return
      const pauseMs = Math.min(1000 * 2 ** failures++, longestPauseMs)
      for (let leftMs = pauseMs; leftMs > 0 && !isOver; leftMs -= 1000) {
        onState({ name: 'waiting', why, seconds: Math.ceil(leftMs / 1000) })
        await new Promise(resolve => setTimeout(resolve, Math.min(1000, leftMs)))
      }
    }
  }

  void goOn()
  return () => {
    isOver = true
    abort.abort()
  }
}

/**
 * HTML Living Standard, 9.2.6: as much of it as Auth sends.
 * @param {(event: AuthEvent) => void} onEvent
 */
export function eventParser(onEvent) {
  let rest = ''
  /** @param {string} text */
  return text => {
    const blocks = (rest + text).split('\n\n')
    rest = blocks.pop() ?? ''
    for (const block of blocks) {
      let name = 'message'
      let data = ''
      for (const line of block.split('\n')) {
        if (line.startsWith('event: ')) name = line.slice(7)
        if (line.startsWith('data: ')) data += line.slice(6)
      }
      if (data !== '') onEvent({ name, data: JSON.parse(data) })
    }
  }
}
