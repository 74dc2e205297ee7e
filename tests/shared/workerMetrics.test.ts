// A process that shares a port asks its parent for the metrics of all.
import { spawn } from 'node:child_process'
import { on } from 'node:events'
import { pathToFileURL } from 'node:url'
import { expect } from 'chai'

const module = pathToFileURL('shared/workerMetrics.ts').href

/** A worker of a cluster that reads the sum, and reports what it got. The parent is this process. */
const script = `
  const { readSum, shareMetrics } = await import('${module}')
  shareMetrics(async () => [])
  const { promise, resolve } = Promise.withResolvers()
  process.once('message', ({ timeoutMs }) => resolve(timeoutMs))
  process.send('started')
  const outcome = await readSum(await promise).then(text => ({ text }), ({ code }) => ({ code }))
  process.send({ outcome }, () => process.exit())
`

async function startWorker(timeoutMs: number) {
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    env: { ...process.env, NODE_UNIQUE_ID: '1' }, // what makes it a worker
  })
  const messages = on(child, 'message')
  const next = async () => (await messages.next()).value?.[0]
  await next()
  child.send({ timeoutMs })
  return { child, next }
}

describe('the metrics of processes on one port, asked for by one of them', () => {
  it('are what the parent sends', async () => {
    const { child, next } = await startWorker(60_000)
    const wanted = await next()
    expect(wanted).to.include({ type: 'sum_wanted' })
    child.send({ type: 'sum', id: wanted.id, text: 'the sum' })
    expect(await next()).to.deep.equal({ outcome: { text: 'the sum' } })
  })

  it('are unavailable, and no scrape hangs, if the parent does not answer, as another process manager would not', async () => {
    const { next } = await startWorker(1)
    expect(await next()).to.include({ type: 'sum_wanted' })
    expect(await next()).to.deep.equal({ outcome: { code: 'unavailable' } })
  })
})
