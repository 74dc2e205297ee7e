// Sends bytes that a well-behaved client would never send, and reads the answer.
import { connect } from 'node:net'

export interface RawAnswer {
  /** 0 if the server closed without an answer. */
  status: number
  text: string
  /** The headers of the first answer. */
  headers: Headers
  /** Everything after the headers of the first answer. */
  body: string
  /** True if the server closed the connection, false if it was silent for `quietMs`. */
  closed: boolean
}

/** Sends `bytes` and reads until the server closes or has been silent for `quietMs`. */
export function sendRaw(url: string, bytes: string | Buffer, quietMs = 300): Promise<RawAnswer> {
  const { hostname, port } = new URL(url)
  return new Promise(resolve => {
    const chunks: Buffer[] = []
    let closed = true
    const socket = connect({ host: hostname, port: Number(port) }, () => socket.write(bytes))
    socket.setTimeout(quietMs, () => {
      closed = false
      socket.destroy()
    })
    socket.on('data', chunk => chunks.push(chunk))
    socket.on('error', () => {})
    socket.on('close', () => resolve({ ...parseAnswer(Buffer.concat(chunks).toString('utf8')), closed }))
  })
}

/** The first answer in `text`. */
export function parseAnswer(text: string): Omit<RawAnswer, 'closed'> {
  const [head = '', ...rest] = text.split('\r\n\r\n')
  const [statusLine = '', ...lines] = head.split('\r\n')
  const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(statusLine)?.[1] ?? 0)
  const headers = new Headers()
  if (status > 0) {
    for (const line of lines) headers.append(line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1))
  }
  return { status, text, headers, body: rest.join('\r\n\r\n') }
}
