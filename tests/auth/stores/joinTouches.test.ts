// Touches of one turn of the event loop share a statement.
import { setImmediate as turn } from 'node:timers/promises'
import { expect } from 'chai'
import { joinTouches } from '../../../services/auth/stores/sql/joinTouches.ts'
import type { Found, TokenRecord, TokenRef, TokenStore } from '../../../services/auth/stores/tokenPort.ts'
import { answered } from '../../support/storeFixtures.ts'

const refsOf = (...ids: string[]): TokenRef[] => ids.map(id => ({ id, hash: `hash-of-${id}` }))

/** Joined touches of a store that admits every token but `dead`. */
function open() {
  const calls: { ids: string[]; now: number; purpose: string | null }[] = []
  const touch: TokenStore['touch'] = async (refs, now, purpose) => {
    calls.push({ ids: refs.map(({ id }) => id), now, purpose })
    if (now < 0) throw new Error('the disk is full')
    return refs.map(({ id }) => (id === 'dead' ? null : ({ id } as TokenRecord)))
  }
  return { touch: joinTouches(touch), calls }
}

const idsOf = (found: Found[]) => answered(found).map(token => token?.id ?? null)

describe('joined touches', () => {
  it('of one turn are one statement, at the latest time, and each caller gets its own tokens', async () => {
    const { touch, calls } = open()
    const found = await Promise.all([
      touch(refsOf('a', 'dead'), 5, null),
      touch([], 4, null),
      touch(refsOf('b'), 7, null),
    ])
    expect(calls).to.deep.equal([{ ids: ['a', 'dead', 'b'], now: 7, purpose: null }])
    expect(found.map(idsOf)).to.deep.equal([['a', null], [], ['b']])
  })

  it('of different turns are different statements, so that none waits for a later one', async () => {
    const { touch, calls } = open()
    const first = touch(refsOf('a'), 1, null)
    await turn()
    const second = touch(refsOf('b'), 2, null)
    expect([idsOf(await first), idsOf(await second)]).to.deep.equal([['a'], ['b']])
    expect(calls.map(({ ids }) => ids)).to.deep.equal([['a'], ['b']])
  })

  it('are not joined with those of tokens with a purpose', async () => {
    const { touch, calls } = open()
    await Promise.all([touch(refsOf('a'), 1, null), touch(refsOf('b'), 1, 'reset'), touch(refsOf('c'), 1, null)])
    expect(calls.map(({ ids, purpose }) => ({ ids, purpose }))).to.deep.equal([
      { ids: ['b'], purpose: 'reset' },
      { ids: ['a', 'c'], purpose: null },
    ])
  })

  it('fail together, and the next ones do not', async () => {
    const { touch } = open()
    const outcomes = await Promise.allSettled([touch(refsOf('a'), -1, null), touch(refsOf('b'), -2, null)])
    expect(outcomes.map(({ status }) => status)).to.deep.equal(['rejected', 'rejected'])
    expect(idsOf(await touch(refsOf('c'), 1, null))).to.deep.equal(['c'])
  })
})
