// The lines that a developer sees on a terminal, one per request.
import { PassThrough } from 'node:stream'
import { stripVTControlCharacters } from 'node:util'
import { expect } from 'chai'
import { createRequestLines } from '../../../shared/log/requestLines.ts'
import { until } from '../../support/until.ts'

const request = { method: 'GET', path: '/data', status: 200, durationMs: 1.234 }

function open({ colors = false, isSlow = (): boolean => false } = {}) {
  const lines: string[] = []
  let now = 5000
  const stream = Object.assign(new PassThrough(), { isTTY: colors, getColorDepth: () => 24, hasColors: () => true })
  const write = (line: string) => {
    if (!isSlow()) lines.push(line)
    return !isSlow()
  }
  const show = createRequestLines({ service: 'business', write, stream, monotonicNow: () => now })
  return { lines, show, pass: (ms: number) => (now += ms) }
}

describe('the line of a request on a terminal', () => {
  it('has the service, the method, the path, the status, the time, and the user if one is known', () => {
    const { lines, show } = open()
    show(request, 'demo@example.com')
    show({ ...request, method: 'POST', status: 503, durationMs: 98.7 }, null)
    expect(lines).to.deep.equal(['business GET /data 200 1.2 ms demo@example.com\n', 'business POST /data 503 99 ms\n'])
  })

  it('has a color by its status', () => {
    const { NO_COLOR, FORCE_COLOR } = process.env
    delete process.env['NO_COLOR']
    delete process.env['FORCE_COLOR']
    try {
      const { lines, show } = open({ colors: true })
      for (const status of [204, 302, 404, 500]) show({ ...request, status }, null)
      for (const [i, color] of [32, 36, 33, 31].entries()) expect(lines[i]).to.include(`\x1b[${color}m`)
      expect(stripVTControlCharacters(lines[0] as string)).to.equal('business GET /data 204 1.2 ms\n')
    } finally {
      if (NO_COLOR !== undefined) process.env['NO_COLOR'] = NO_COLOR
      if (FORCE_COLOR !== undefined) process.env['FORCE_COLOR'] = FORCE_COLOR
    }
  })

  it('is left out for validations, probes, metrics and the files of a page', () => {
    const { lines, show } = open()
    for (const path of ['/validateToken', '/health', '/ready', '/metrics', '/console/ring.ts', '/docs/docs.ts']) {
      show({ ...request, path }, null)
    }
    expect(lines).to.deep.equal([])
    for (const path of ['/console', '/docs', '/tokens', '/healthy']) show({ ...request, path }, null)
    expect(lines).to.have.lengthOf(4)
  })

  it('cannot control the terminal, and is short', () => {
    const { lines, show } = open()
    show({ ...request, path: `/\x1b[2J\x9b1m\u202e${'a'.repeat(200)}` }, 'a\nb')
    expect(lines[0]).to.match(/^business GET \/\?\[2J\?1m\?a{60,80}… 200 1\.2 ms a\?b\n$/)
  })

  it('appears at most 25 times a second; then one line has the number of the others', async () => {
    const { lines, show, pass } = open()
    for (let i = 0; i < 200; i++) {
      if (i === 25) pass(990) // the rest of the second is short
      show(request, null)
    }
    expect(lines).to.have.lengthOf(25)
    await until(() => lines.length > 25)
    expect(lines[25]).to.equal('business … 175 more requests, see the log\n')
    pass(1000)
    show(request, null)
    expect(lines).to.have.lengthOf(27)
  })

  it('is counted instead if the terminal is too slow', async () => {
    let isSlow = false
    const { lines, show, pass } = open({ isSlow: () => isSlow })
    show(request, null)
    pass(990)
    isSlow = true
    show(request, null)
    isSlow = false
    await until(() => lines.length > 1)
    expect(lines[1]).to.equal('business … 1 more request, see the log\n')
  })
})
