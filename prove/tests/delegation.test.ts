// The checker of recorded histories: delegated tokens, which never outlive their parent and never exceed it.
import {
  data,
  endAll,
  expectBrokenByLast,
  expectFine,
  issue,
  type Line,
  limited,
  limitToken,
  login,
  logout,
  lost,
  no,
  pauseToken,
} from './historyLines.ts'

const parent = login('u1', 't1', [0, 10])
/** It would live for long by itself; its parent dies 1000 ms after its last use. */
const child = (token: string, when: [number, number], members: Line = {}) =>
  issue(token, when, { kind: 'fixed', ttlMs: 100_000, user: 'u1', parent: 't1', ...members })
const family = [parent, child('t2', [20, 30])]

describe('checkHistory, with delegated tokens,', () => {
  it('accepts a delegated token while its parent may be live', () => {
    expectFine([...family, data('t2', [40, 50]), data('t2', [1030, 1035])])
    expectFine([...family, data('t1', [900, 910]), data('t2', [1900, 1910])])
    expectFine([...family, data('t1', [900, 910], lost), data('t2', [1900, 1910])])
  })

  it('refutes a delegated token that is admitted after the end of its parent', () => {
    const out = [...family, logout('t1', [40, 50])]
    expectBrokenByLast('outlived parent', [...out, data('t2', [60, 70])])
    expectFine([...out, data('t2', [60, 70], no)])
    expectFine([...family, logout('t1', [40, 50]), data('t2', [45, 70])])
    expectFine([...family, logout('t1', [40, 50], lost), data('t2', [60, 70])])
  })

  it('refutes a delegated token that is admitted after its parent must have expired', () => {
    expectBrokenByLast('outlived parent', [...family, data('t2', [1041, 1050])])
    expectBrokenByLast('outlived parent', [...family, data('t2', [900, 910]), data('t2', [1041, 1050])])
    expectFine([...family, data('t2', [1041, 1050], no)])
  })

  it('counts delegating as a use of the parent', () => {
    expectFine([...family, child('t3', [900, 910]), data('t1', [1880, 1890])])
    expectBrokenByLast('ended token', [parent, logout('t1', [12, 15]), child('t2', [20, 30])])
  })

  it('refutes a refusal that nothing about the token and its parent explains', () => {
    expectBrokenByLast('lost session', [...family, data('t2', [500, 510], no)])
    expectFine([...family, logout('t1', [40, 50], lost), data('t2', [500, 510], no)])
    expectFine([...family, endAll('u1', [40, 50]), data('t2', [500, 510], no)])
  })

  it('refutes a delegated token that is admitted while its parent is paused', () => {
    const paused = [...family, pauseToken('t1', true, [40, 50])]
    expectBrokenByLast('stale authority', [...paused, data('t2', [60, 70])])
    const resumed = [...paused, data('t2', [60, 70], no), pauseToken('t1', false, [80, 90])]
    expectFine([...resumed, data('t2', [100, 110])])
    expectBrokenByLast('stale pause', [...resumed, data('t2', [100, 110], no)])
  })

  it('counts the requests with a delegated token for the rate of its parent', () => {
    const twoAtOnce = [...family, limitToken('t1', { perMinute: 6, burst: 2 }, [40, 50]), child('t3', [52, 55])]
    const used = [...twoAtOnce, data('t2', [60, 70]), data('t3', [80, 90])]
    expectBrokenByLast('limit exceeded', [...used, data('t2', [100, 110])])
    expectBrokenByLast('limit exceeded', [...used, data('t1', [100, 110])])
    expectFine([...used, data('t2', [100, 110], limited)])
    expectBrokenByLast('limited without cause', [...twoAtOnce, data('t2', [60, 70], limited)])
  })
})
