// Parses server-sent events (HTML Living Standard, section 9.2.6), as far as Auth and Business use them.

export interface ParsedEvent {
  name: string
  /** From JSON. */
  data: unknown
}

/** The returned function takes pieces of the stream as they arrive. */
export function createEventParser(onEvent: (event: ParsedEvent) => void): (text: string) => void {
  let rest = ''
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
