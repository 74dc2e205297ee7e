// The checker of recorded histories: limits of tokens and users, which must never be exceeded, and must never limit without cause.
import { expect } from 'chai'
import fc from 'fast-check'
import { type Bucket, takeFrom } from '../../services/auth/stores/rates.ts'
import { checkHistory } from '../checker.ts'
import { type Rate, readHistory } from '../history.ts'
import {
  data,
  expectBrokenByLast,
  expectFine,
  fault,
  issue,
  type Line,
  limited,
  limitToken,
  limitUser,
  line,
  linesOf,
  logout,
  lost,
  no,
  renew,
} from './historyLines.ts'

const twoAtOnce: Rate = { perMinute: 60, burst: 2 }
/** With a tolerance of 10 ms, the third request passes 990 ms after the first one ended. */
const fixed = (token: string, members: Line = {}) =>
  issue(token, [0, 10], { kind: 'fixed', ttlMs: 100_000, ...members })
const look = (token: string, when: [number, number]) => line('validate', when, { token, touch: false })

describe('checkHistory, with limits,', () => {
  describe('no more requests are admitted than a number of uses', () => {
    const t1 = fixed('t1', { uses: 2 })
    const used = [t1, data('t1', [20, 30]), data('t1', [40, 50])]

    it('refutes one more, whatever admits it', () => {
      expectBrokenByLast('limit exceeded', [...used, data('t1', [60, 70])])
      expectBrokenByLast('limit exceeded', [...used, line('validate', [60, 70], { token: 't1', touch: true })])
      expectFine([...used, data('t1', [60, 70], no)])
    })

    it('counts neither looks nor what a user does at Auth', () => {
      const session = issue('t1', [0, 10], { kind: 'sliding', user: 'u1', uses: 2 })
      const list = line('list', [12, 14], { token: 't1' })
      const renewed = [session, list, renew('t1', 't2', [15, 16]), look('t2', [17, 18]), look('t2', [17, 18])]
      expectFine([...renewed, data('t2', [20, 30]), data('t2', [40, 50])])
      expectBrokenByLast('limit exceeded', [...renewed, ...[20, 40, 60].map(at => data('t2', [at, at + 9]))])
    })

    it('passes a refusal only if the last use can have been made', () => {
      expectBrokenByLast('lost session', [t1, data('t1', [20, 30]), data('t1', [60, 70], no)])
      expectFine([t1, data('t1', [20, 30]), data('t1', [40, 50], lost), data('t1', [60, 70], no)])
      expectFine([t1, data('t1', [20, 30]), data('t1', [40, 50], lost), data('t1', [60, 70])])
      const paced = fixed('t1', { uses: 2, rate: { perMinute: 60, burst: 1 } })
      const limitedOnce = [paced, data('t1', [20, 30]), data('t1', [40, 50], limited)]
      expectBrokenByLast('lost session', [...limitedOnce, data('t1', [60, 70], no)])
    })

    it('passes what a fault may have made the store forget', () => {
      expectFine([...used, fault([52, 58], { losesTokens: true }), data('t1', [60, 70])])
      const all = [
        ...used,
        fault([52, 58], { losesTokens: true }),
        ...[60, 80, 100].map(at => data('t1', [at, at + 9])),
      ]
      expectBrokenByLast('limit exceeded', all)
    })
  })

  describe('no more requests are admitted than a rate', () => {
    const t1 = fixed('t1', { rate: twoAtOnce })
    const used = [t1, data('t1', [20, 30]), data('t1', [40, 50])]

    it('refutes one more before the bucket refills', () => {
      expectBrokenByLast('limit exceeded', [...used, data('t1', [60, 70])])
      expectBrokenByLast('limit exceeded', [...used, data('t1', [900, 1000])])
      expectFine([...used, data('t1', [900, 1010])])
      expectFine([...used, data('t1', [60, 70], limited), data('t1', [1020, 1030])])
    })

    it('lets requests that overlap count in any order, and refutes too many of them', () => {
      const slow = data('t1', [5, 3000])
      expectFine([t1, slow, data('t1', [20, 30]), data('t1', [40, 50])])
      expectFine([t1, slow, data('t1', [20, 30]), data('t1', [40, 50]), data('t1', [1500, 1510])])
      expectBrokenByLast('limit exceeded', [t1, slow, data('t1', [20, 30]), data('t1', [40, 50]), data('t1', [60, 70])])
    })

    it('refutes more than refills in the long run', () => {
      const paced = [t1, ...Array.from({ length: 8 }, (_, i) => data('t1', [i * 1000 + 20, i * 1000 + 30]))]
      expectFine([...paced, data('t1', [7100, 7110])])
      expectBrokenByLast('limit exceeded', [...paced, data('t1', [7100, 7110]), data('t1', [7200, 7210])])
    })

    it('counts all secrets of a renewed session together', () => {
      const session = issue('t1', [0, 10], { kind: 'sliding', user: 'u1', rate: twoAtOnce })
      const renewed = [session, data('t1', [20, 30]), data('t1', [40, 50]), renew('t1', 't2', [51, 52])]
      expectBrokenByLast('limit exceeded', [...renewed, data('t2', [60, 70])])
    })

    it('begins anew with each change, the same rate included, and while a change is unfinished', () => {
      const change = limitToken('t1', { perMinute: 60, burst: 1 }, [52, 55])
      expectFine([...used, change, data('t1', [60, 70])])
      expectBrokenByLast('limit exceeded', [...used, change, data('t1', [60, 70]), data('t1', [80, 90])])
      expectFine([...used, limitToken('t1', null, [52, 55]), ...[60, 70, 80, 90].map(at => data('t1', [at, at + 9]))])
      const unknown = limitToken('t1', null, [52, 55], { ...lost, settledMs: 60 })
      expectFine([...used, unknown, data('t1', [70, 80]), data('t1', [90, 95])])
      const known = limitToken('t1', twoAtOnce, [100, 110])
      const again = [120, 130, 140].map(at => data('t1', [at, at + 9]))
      expectBrokenByLast('limit exceeded', [...used, unknown, data('t1', [70, 80]), known, ...again])
    })

    it('does not count requests that may not have been admitted', () => {
      expectFine([...used.slice(0, 2), data('t1', [40, 50], lost), data('t1', [60, 70])])
    })

    it('begins anew if the clock is set, or if the store may have forgotten it', () => {
      for (const members of [{ losesTokens: true }, { clockShiftMs: 3_600_000 }]) {
        expectFine(
          [t1, data('t1', [20, 30]), data('t1', [40, 50]), fault([52, 58], members), data('t1', [60, 70])].slice(0, 5),
        )
      }
      expectFine([...used, fault([52, 58], { losesTokens: true }), data('t1', [55, 70]), data('t1', [60, 70])])
    })
  })

  describe('the rate of a user', () => {
    const [t1, t2] = [fixed('t1', { user: 'u1' }), fixed('t2', { user: 'u1' })]
    const set = limitUser('u1', twoAtOnce, [11, 15])
    const used = [t1, t2, fixed('t3', { user: 'u2' }), set, data('t1', [20, 30]), data('t2', [40, 50])]

    it('counts all tokens of the user together, and no others', () => {
      expectBrokenByLast('limit exceeded', [...used, data('t1', [60, 70])])
      expectFine([...used, data('t3', [60, 70]), data('t3', [60, 70]), data('t3', [60, 70])])
    })

    it('does not count tokens with a purpose', () => {
      const reset = fixed('t4', { user: 'u1', purpose: 'reset' })
      expectFine([...used, reset, line('validate', [60, 70], { token: 't4', touch: true, purpose: 'reset' })])
    })
  })

  describe('no request is limited without cause', () => {
    const t1 = fixed('t1', { user: 'u1', rate: twoAtOnce })

    it('refutes a limit where there is none, or where there was one', () => {
      expectBrokenByLast('limited without cause', [fixed('t1', { user: 'u1', uses: 3 }), data('t1', [20, 30], limited)])
      const taken = [
        fixed('t1', { user: 'u1' }),
        limitUser('u1', twoAtOnce, [11, 12]),
        data('t1', [13, 14]),
        data('t1', [15, 16]),
        data('t1', [17, 18], limited),
        limitUser('u1', null, [20, 30]),
      ]
      expectFine([...taken, data('t1', [25, 35], limited)])
      expectBrokenByLast('limited without cause', [...taken, data('t1', [31, 35], limited)])
      expectFine([...taken.slice(0, -1), limitUser('u1', null, [20, 30], lost), data('t1', [31, 35], limited)])
    })

    it('refutes a limit before the bucket can be empty, and after it must be full again', () => {
      expectBrokenByLast('limited without cause', [t1, data('t1', [20, 30]), data('t1', [60, 70], limited)])
      expectFine([t1, data('t1', [20, 30]), data('t1', [40, 50], lost), data('t1', [60, 70], limited)])
      const used = [t1, data('t1', [20, 30]), data('t1', [40, 50])]
      expectFine([...used, data('t1', [2030, 2040], limited)])
      expectBrokenByLast('limited without cause', [...used, data('t1', [2041, 2050], limited)])
    })

    it('passes a limit that begins a moment early because a later request overtook this one, and only then', () => {
      expectFine([t1, data('t1', [20, 40]), data('t1', [30, 50], limited)])
      expectBrokenByLast('limited without cause', [t1, data('t1', [20, 40]), data('t1', [41, 60], limited)])
      const three = fixed('t1', { rate: { perMinute: 60, burst: 3 } })
      expectBrokenByLast('limited without cause', [three, data('t1', [20, 40]), data('t1', [30, 50], limited)])
    })

    it('knows both buckets, and verdicts', () => {
      const limitedVerdict = line('validate', [60, 70], { token: 't1', touch: true, outcome: 'limited' })
      const used = [fixed('t1', { user: 'u1' }), data('t1', [20, 30]), data('t1', [40, 50])]
      expectBrokenByLast('limited without cause', [...used, limitedVerdict])
      expectFine([used[0] as Line, limitUser('u1', twoAtOnce, [11, 15]), ...used.slice(1), limitedVerdict])
    })
  })

  it('refutes a look that is limited', () => {
    const used = [fixed('t1', { rate: twoAtOnce }), data('t1', [20, 30]), data('t1', [40, 50])]
    const touched = line('validate', [60, 70], { token: 't1', touch: true, outcome: 'limited' })
    expectFine([...used, touched])
    expectBrokenByLast('limited without cause', [...used, { ...touched, touch: false }])
  })

  it('does not take a limited request for a use or for a refusal', () => {
    const single = [
      fixed('t1', { user: 'u1', kind: 'single-use' }),
      limitUser('u1', { perMinute: 60, burst: 1 }, [11, 15]),
    ]
    const other = fixed('t2', { user: 'u1' })
    expectFine([...single, other, data('t2', [20, 30]), data('t1', [40, 50], limited), data('t1', [1040, 1050])])
    expectFine([...single, other, data('t2', [20, 30]), data('t1', [40, 50], limited), logout('t1', [60, 70], no)])
  })

  it('takes 429 without the outcome `limited` for a refusal, and no other status for limited', () => {
    const t1 = fixed('t1')
    expectBrokenByLast('lost session', [t1, data('t1', [20, 30], { status: 429 })])
    expect(() => readHistory(linesOf([t1, data('t1', [20, 30], { status: 401, outcome: 'limited' })]))).to.throw(
      /line 3/,
    )
    expect(() => readHistory(linesOf([t1, logout('t1', [20, 30], limited)]))).to.throw(/line 3/)
  })
})

type Flaw = 'none' | 'counts each token of a user alone' | 'counts in two processes' | 'forgets a use' | 'never refills'

interface Run {
  seed: number
  flaw: Flaw
}

/** A history of clients of a store that keeps limits, or does not. */
function historyOf({ seed, flaw }: Run): string[] {
  const dice = createDice(seed)
  const rates = [null, { perMinute: 600, burst: 3 }, { perMinute: 6000, burst: 5 }, { perMinute: 60, burst: 1 }]
  const tokens = ['t1', 't2', 't3'].map(name => ({
    name,
    user: dice.pick(['u1', null]),
    rate: dice.pick(rates),
    uses: dice.pick([null, null, 3, 40]),
  }))
  const bucketOf = (rate: Rate | null): Bucket | null => rate && { rate, fullAtUs: 0 }
  const buckets = new Map(tokens.flatMap(({ name, rate }) => [0, 1].map(i => [`${name} ${i}`, bucketOf(rate)])))
  const left = new Map(tokens.map(({ name, uses }) => [name, uses ?? Infinity]))

  function use({ name, user }: { name: string; user: string | null }, atMs: number): Line {
    if ((left.get(name) as number) < 1) return no
    const i = flaw === 'counts in two processes' ? dice.pick([0, 1]) : 0
    const owner = user && (flaw === 'counts each token of a user alone' ? `${user} ${name}` : `${user} 0`)
    const own = [buckets.get(`${name} ${i}`), owner && buckets.get(owner)].filter(bucket => typeof bucket === 'object')
    const now = 1_000_000 + Math.floor(flaw === 'never refills' ? 0 : atMs)
    const wait = takeFrom(
      own.filter(bucket => bucket !== null),
      now,
    )
    if (wait > 0) return limited
    if (flaw !== 'forgets a use' || dice.chance(0.8)) left.set(name, (left.get(name) as number) - 1)
    return {}
  }

  function change(key: string, rate: Rate | null): void {
    for (const each of [`${key} 0`, `${key} 1`, ...tokens.map(({ name }) => `${key} ${name}`)]) {
      buckets.set(each, bucketOf(rate))
    }
  }

  const lines: Line[] = tokens.map(({ name, ...terms }) => fixed(name, terms))
  for (let atMs = 100; lines.length < 400; atMs += dice.between(0, 30)) {
    const longMs = dice.chance(0.1) ? 1000 : 40
    const when: [number, number] = [Math.max(11, atMs - dice.between(0, longMs)), atMs + dice.between(0, longMs)]
    const isUnknown = dice.chance(0.05)
    const settled = isUnknown ? { ...lost, ...(dice.chance(0.7) && { settledMs: when[1] }) } : {}
    const token = dice.pick(tokens)
    if (dice.chance(0.95)) {
      const answer = isUnknown && dice.chance(0.5) ? {} : use(token, atMs)
      lines.push(data(token.name, when, isUnknown ? settled : answer))
      continue
    }
    const rate = dice.pick(rates)
    const key = token.user ?? token.name
    if (!isUnknown || dice.chance(0.5)) change(key, rate)
    lines.push(token.user ? limitUser(key, rate, when, settled) : limitToken(key, rate, when, settled))
  }
  return linesOf(lines)
}

function createDice(seed: number) {
  let state = seed
  const next = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 32
  }
  return {
    between: (low: number, high: number) => low + (high - low) * next(),
    chance: (share: number) => next() < share,
    pick: <T>(items: readonly T[]): T => items[Math.floor(next() * items.length)] as T,
  }
}

describe('checkHistory, with histories of a store that keeps limits,', () => {
  const rulesOf = (run: Run) => checkHistory(readHistory(historyOf(run))).map(({ rule }) => rule)

  it('never refutes it, whatever overlaps or is unknown', () => {
    fc.assert(
      fc.property(fc.nat(), seed => {
        expect(rulesOf({ seed, flaw: 'none' })).to.deep.equal([])
      }),
      { numRuns: 150 },
    )
  })

  const flaws = {
    'counts each token of a user alone': 'limit exceeded',
    'counts in two processes': 'limit exceeded',
    'forgets a use': 'limit exceeded',
    'never refills': 'limited without cause',
  } as const
  for (const [flaw, rule] of Object.entries(flaws)) {
    it(`refutes one that ${flaw}`, () => {
      const found = Array.from({ length: 20 }, (_, seed) => rulesOf({ seed, flaw: flaw as Flaw })).flat()
      expect(found).to.include(rule)
    })
  }
})
