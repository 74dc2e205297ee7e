// Bytes to a server and back, for what a well-behaved client would never send.
import { connect } from 'node:net'

export interface RawAnswer {
  /** 0 where the server closed without an answer. */
  status: number
  text: string
}

/** Sends `bytes` and reads until the server closes or has been quiet for `quietMs`. */
export function sendRaw(url: string, bytes: string | Buffer, quietMs = 300): Promise<RawAnswer> {
  const { hostname, port } = new URL(url)
  return new Promise(resolve => {
    const chunks: Buffer[] = []
    const socket = connect({ host: hostname, port: Number(port) }, () => socket.write(bytes))
    socket.setTimeout(quietMs, () => socket.destroy())
    socket.on('data', chunk => chunks.push(chunk))
    socket.on('error', () => {})
    socket.on('close', () => {
      const text = Buffer.concat(chunks).toString('utf8')
      resolve({ status: Number(/^HTTP\/1\.1 (\d{3})/.exec(text)?.[1] ?? 0), text })
    })
  })
}
