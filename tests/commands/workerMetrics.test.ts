// /metrics of several processes that share a port under ./startServer: any of them answers for all.
import { expect } from 'chai'
import { logIn } from '../support/factories.ts'
import { cleanUp, descendantsOf, type Run, runStartServer } from '../support/startServer.ts'
import { until } from '../support/until.ts'

const startedWithinMs = 80_000 // several processes start one by one, on a busy machine

describe('the metrics of several processes on one port', () => {
  let run: Run
  let business: string
  let internal: string
  let token: string

  before(async () => {
    run = runStartServer({ env: { WEB_CONCURRENCY: '2', ACCESS_LOG: 'off' } })
    const addresses = await run.ready
    business = addresses.business
    internal = (addresses as unknown as { businessInternal: string }).businessInternal
    token = await logIn(addresses.auth)
  })
  after(cleanUp)

  /** Each request has its own connection, so that the processes get requests in turn. */
  async function ask(times: number): Promise<void> {
    for (let i = 0; i < times; i++) await fetch(`${business}/data`, { headers: { token, connection: 'close' } })
  }
  async function scrape(): Promise<string> {
    return (await fetch(`${internal}/metrics`, { headers: { connection: 'close' } })).text()
  }
  const valueIn = (page: string, series: string) =>
    Number(
      page
        .split('\n')
        .find(line => line.startsWith(`${series} `))
        ?.split(' ')[1] ?? 0,
    )
  const dataRequests =
    'latchkey_http_request_duration_seconds_count{listener="business",method="GET",route="/data",status="200"}'
  const workers = () =>
    descendantsOf(Number(run.process.pid)).filter(({ command }) => command.includes('services/business/main.ts'))

  it('are the sum in each scrape: counters and histograms of all processes', async () => {
    const before = await scrape()
    await ask(10)
    for (let i = 0; i < 4; i++) {
      const page = await scrape()
      for (const series of [dataRequests, 'latchkey_batch_size_count', 'latchkey_batch_size_bucket{le="+Inf"}']) {
        expect(valueIn(page, series) - valueIn(before, series), series).to.equal(10)
      }
    }
  })

  it('are the same fact once, not twice: the Auths that are known and the version', async () => {
    const page = await scrape()
    expect(valueIn(page, 'latchkey_auths{state="healthy"}')).to.equal(1)
    const infos = page.split('\n').filter(line => line.startsWith('latchkey_build_info{'))
    expect(infos).to.have.length(1)
    expect(infos[0]).to.match(/ 1$/)
  })

  it('are answered to several scrapes at the same time', async () => {
    const pages = await Promise.all(Array.from({ length: 8 }, scrape))
    for (const page of pages) expect(valueIn(page, dataRequests)).to.equal(10)
  })

  it('lose nothing when the processes are replaced, because a process that closes sends its last counts', async () => {
    await ask(5)
    run.process.kill('SIGHUP')
    await until(() => run.stdout().includes('"event":"workers_replaced"'), startedWithinMs)
    for (let i = 0; i < 4; i++) expect(valueIn(await scrape(), dataRequests)).to.equal(15)
  })

  it('never fall when a process is killed, because what was scraped last is kept', async () => {
    await ask(4)
    expect(valueIn(await scrape(), dataRequests)).to.equal(19)
    const [victim] = workers()
    process.kill(Number(victim?.pid), 'SIGKILL')
    await until(() => run.stderr().includes('Business ended (SIGKILL); restarting it'), startedWithinMs)
    await until(() => workers().length === 2, startedWithinMs)
    await ask(3)
    expect(valueIn(await scrape(), dataRequests)).to.equal(22)
  })

  it('are answered although a process stands still: its counts are those of the scrape before', async () => {
    const [victim] = workers()
    process.kill(Number(victim?.pid), 'SIGSTOP')
    try {
      // Scrapes that reach the process that hangs wait; the other one answers.
      const page = await Promise.any([scrape(), scrape(), scrape(), scrape()])
      expect(valueIn(page, dataRequests)).to.equal(22)
    } finally {
      process.kill(Number(victim?.pid), 'SIGCONT')
    }
  })
})
