// The rounds that all benchmarks of requests share.
import { expect } from 'chai'
import { measureRounds, type Row } from '../../bench/rounds.ts'

/** Serves `perSecond` requests a second, a different figure each time; 0 means that the row fails. */
function rowOf(name: string, perSecond: number[], driven: string[]): Row {
  let calls = 0
  return {
    name,
    check: async () => {},
    pids: () => [],
    counts: async () => ({ callsPerRequest: calls }),
    async drive(load, seconds) {
      driven.push(`${name} ${load} ${seconds}`)
      const figure = perSecond.shift() ?? 0
      if (figure === 0) throw new Error('it ended')
      calls += figure * seconds * 3
      return { requests: figure * seconds, perSecond: figure, p50: 1, p99: 2, max: 3, errors: 0 }
    },
  }
}

const options = { rounds: 3, seconds: 2, loads: [8, 64], warmUpLoad: 64, print: () => {} }

describe('the rounds of a benchmark', () => {
  it('measure the rows in turn, after a warm-up of each, and give medians', async () => {
    const driven: string[] = []
    const rows = [rowOf('a', [1, 10, 30, 20, 100, 100, 100], driven), rowOf('b', [1, 7, 5, 6, 100, 100, 100], driven)]
    const results = await measureRounds(rows, options)
    const round = (load: number) => [`a ${load} 2`, `b ${load} 2`]
    const rounds = [8, 8, 8, 64, 64, 64].flatMap(round)
    expect(driven).to.deep.equal(['a 64 1', 'b 64 1', ...rounds])
    expect(Object.keys(results)).to.deep.equal(['8', '64'])
    expect([results[8]?.['a']?.perSecond, results[8]?.['b']?.perSecond]).to.deep.equal([20, 6])
    expect(results[8]?.['a']).to.include({ callsPerRequest: 3, cpuPerRequest: 0 })
    expect(results[8]?.['a']?.cpuPerRound).to.have.length(3)
  })

  it('go on without a row that fails, if the benchmark handles failures', async () => {
    const rows = () => [rowOf('fails', [1, 10, 0], []), rowOf('works', [1, 7, 5, 6, 100, 100, 100], [])]
    const failures: string[] = []
    const onFailure = (name: string, { message }: Error) => failures.push(`${name}: ${message}`)
    const results = await measureRounds(rows(), { ...options, onFailure })
    expect(failures).to.deep.equal(['fails: it ended'])
    expect([results[8], results[64]].map(rows => Object.keys(rows ?? {}))).to.deep.equal([['works'], ['works']])
    const error = await measureRounds(rows(), options).catch((error: Error) => error)
    expect(error).to.be.instanceOf(Error).with.property('message', 'it ended')
  })
})
