// What a service does when its own code fails: it ends in an orderly way and never continues in an unknown state.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { expect } from 'chai'
import type { LogLine } from '../support/log.ts'

/** A service with one slow route, during which an uncaught error is thrown. */
const script = (fault: string) => `
  import { setTimeout as sleep } from 'node:timers/promises'
  import { createListener } from './shared/http/listener.ts'
  import { createLog } from './shared/log/log.ts'
  import { runService } from './shared/service.ts'
  const log = createLog({ service: 'test', level: 'info', stream: process.stdout })
  const monotonicNow = () => performance.now()
  const slow = async ctx => {
    ${fault}
    await sleep(300)
    ctx.body = { done: true }
  }
  const options = { name: 'test', portSetting: 'PORT', log, accessLog: 'off', monotonicNow }
  const listener = createListener({ 'GET /slow': [slow] }, options)
  const service = {
    log,
    listen: async () => ({ test: await listener.listen(0, '127.0.0.1') }),
    close: () => listener.close({ lameDuckMs: 100, drainMs: 5000 }),
  }
  await runService(() => null, async () => service, async () => {})
`

describe('an uncaught error', () => {
  for (const [event, fault] of [
    ['uncaughtException', `setTimeout(() => { throw new Error('a fault of ours') }, 0)`],
    ['unhandledRejection', `void Promise.reject(new Error('a fault of ours'))`],
    ['unhandledRejection', `void Promise.reject(null)`],
  ] as const) {
    it(`is logged, requests in flight are answered, and the process exits with 1: ${fault}`, async () => {
      const child = spawn(process.execPath, ['--input-type=module', '--eval', script(fault)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      const ended = once(child, 'close')
      const lines: LogLine[] = []
      const output = createInterface(child.stdout)
      output.on('line', line => lines.push(JSON.parse(line)))
      while (!lines.some(({ event }) => event === 'listening')) await once(output, 'line')
      const url = lines.find(({ event }) => event === 'listening')?.['test']
      const answer = await fetch(`${url}/slow`)
      expect(await answer.json()).to.deep.equal({ done: true })
      expect(await ended).to.deep.equal([1, null])
      const [told] = lines.filter(line => line.event === event)
      expect(told?.level).to.equal('error')
      if (fault.includes('a fault')) expect(told?.['message']).to.equal('a fault of ours')
      expect(lines.filter(line => line.event === 'closing')).to.have.length(1)
    })
  }
})
