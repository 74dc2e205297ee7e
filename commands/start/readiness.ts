// Waits for GET /ready of a service that has just started.
import { once } from 'node:events'
import http from 'node:http'
import https from 'node:https'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'

const pollEveryMs = 50

/** Resolves to null when the service is ready, or to the reason if it is not ready in time. */
export async function waitUntilReady(url: string, timeoutMs: number): Promise<string | null> {
  const endsAt = performance.now() + timeoutMs
  for (;;) {
    const response = await get(url).catch(() => null)
    if (response?.status === 200) return null
    if (performance.now() > endsAt) {
      return response === null ? 'no response' : (JSON.parse(response.text) as { detail: string }).detail
    }
    await sleep(pollEveryMs)
  }
}

/** Does not verify the certificate: it is valid for the public name, not for the loopback address that is used here. */
async function get(url: string): Promise<{ status: number | undefined; text: string }> {
  const options = { headers: { connection: 'close' }, rejectUnauthorized: false }
  const request = url.startsWith('https:') ? https.get(url, options) : http.get(url, options)
  const [response] = (await once(request, 'response')) as [http.IncomingMessage]
  return { status: response.statusCode, text: await text(response) }
}
