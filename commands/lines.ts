// Reads lines from a file or a pipe. Hides that a line may be too long or no text.
const maxLineBytes = 4096 // far more than a username of 256 characters and a hash
const lineFeed = 10
const utf8 = new TextDecoder('utf-8', { fatal: true })

export type Problem = { problem: string }

/** The lines without their line feeds. A line that is too long is cut off, so memory stays bounded. */
export async function* readLines(input: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let rest: Buffer = Buffer.alloc(0)
  const extendedBy = (more: Buffer) => Buffer.concat([rest, more.subarray(0, maxLineBytes + 1 - rest.length)])
  for await (const chunk of input) {
    let from = 0
    for (let to = chunk.indexOf(lineFeed); to >= 0; to = chunk.indexOf(lineFeed, from)) {
      yield extendedBy(chunk.subarray(from, to))
      rest = Buffer.alloc(0)
      from = to + 1
    }
    rest = extendedBy(chunk.subarray(from))
  }
  if (rest.length > 0) yield rest
}

/** Drops a carriage return at the end. */
export function decodeLine(line: Buffer): string | Problem {
  if (line.length > maxLineBytes) return { problem: `longer than ${maxLineBytes} bytes` }
  try {
    return utf8.decode(line).replace(/\r$/, '')
  } catch {
    return { problem: 'not UTF-8' }
  }
}
