// The checker of recorded histories: roles and pauses that a request must obey if it begins after the answer to their change.
import {
  adminData,
  badLogin,
  data,
  expectBrokenByLast,
  expectFine,
  issue,
  line,
  login,
  logout,
  lost,
  no,
  pauseToken,
  pauseUser,
  renew,
  setRoles,
  verdict,
} from './historyLines.ts'

describe('checkHistory, with roles and pauses,', () => {
  const t1 = login('u1', 't1', [0, 10])
  const settled = { ...lost, settledMs: 60 }

  describe('roles that were replaced are not seen by a request that begins after the answer', () => {
    const granted = setRoles('u1', ['admin'], [20, 30])
    const taken = setRoles('u1', ['clerk'], [40, 50])

    it('refutes a role that was taken, in a verdict and on a route that needs it', () => {
      expectBrokenByLast('stale authority', [t1, granted, taken, verdict('t1', ['admin'], [51, 55])])
      expectBrokenByLast('stale authority', [t1, granted, taken, adminData('t1', 200, [51, 55])])
      expectFine([t1, granted, taken, verdict('t1', ['clerk'], [51, 55]), adminData('t1', 403, [56, 60])])
    })

    it('refutes a role that was granted and is lacking', () => {
      expectBrokenByLast('stale authority', [t1, granted, verdict('t1', [], [31, 35])])
      expectBrokenByLast('stale authority', [t1, granted, adminData('t1', 403, [31, 35])])
      expectFine([t1, granted, verdict('t1', ['admin'], [31, 35]), adminData('t1', 200, [36, 40])])
    })

    it('refutes roles that no one gave, even before the first change, to another user or to a guest', () => {
      expectBrokenByLast('stale authority', [t1, verdict('t1', ['admin'], [11, 15])])
      expectBrokenByLast('stale authority', [t1, granted, login('u2', 't2', [0, 1]), adminData('t2', 200, [31, 35])])
      expectBrokenByLast('stale authority', [issue('t2', [0, 1]), verdict('t2', ['admin'], [31, 35])])
    })

    it('passes the roles before and after a change for a request that overlaps it, whatever answers first', () => {
      for (const when of [
        [5, 25],
        [25, 90],
        [30, 35],
      ] as [number, number][]) {
        expectFine([t1, granted, verdict('t1', [], when)])
        expectFine([t1, granted, verdict('t1', ['admin'], when)])
        expectFine([t1, granted, adminData('t1', 403, when)])
        expectFine([t1, granted, adminData('t1', 200, when)])
      }
    })

    it('refutes roles that were seen before their change began', () => {
      expectBrokenByLast('stale authority', [t1, granted, verdict('t1', ['admin'], [15, 19])])
    })

    it('passes both states after a change whose outcome is unknown, until the next acknowledged change', () => {
      const unknown = setRoles('u1', ['clerk'], [40, 50], settled)
      for (const roles of [['admin'], ['clerk']]) {
        expectFine([t1, granted, unknown, verdict('t1', roles, [51, 55])])
        expectFine([t1, granted, unknown, verdict('t1', roles, [500, 505])])
      }
      expectBrokenByLast('stale authority', [t1, granted, unknown, verdict('t1', [], [51, 55])])
      const next = setRoles('u1', ['auditor'], [70, 80])
      for (const roles of [['admin'], ['clerk']]) {
        expectBrokenByLast('stale authority', [t1, granted, unknown, next, verdict('t1', roles, [81, 85])])
      }
      expectFine([t1, granted, unknown, next, verdict('t1', ['auditor'], [81, 85])])
    })

    it('passes an unknown change that may take effect after a later acknowledged one, until it is settled', () => {
      const hung = setRoles('u1', ['clerk'], [40, 50], { ...lost, settledMs: 300 })
      const next = setRoles('u1', ['auditor'], [70, 80])
      expectFine([t1, granted, hung, next, verdict('t1', ['auditor'], [85, 90]), verdict('t1', ['clerk'], [310, 320])])
      const last = setRoles('u1', ['cook'], [301, 305])
      expectBrokenByLast('stale authority', [t1, granted, hung, next, last, verdict('t1', ['clerk'], [310, 320])])
      const never = setRoles('u1', ['clerk'], [40, 50], lost)
      expectFine([t1, granted, never, next, last, verdict('t1', ['clerk'], [310, 320])])
    })

    it('refutes the earlier roles once an unknown change has been seen', () => {
      const unknown = setRoles('u1', ['clerk'], [40, 50], lost)
      const seen = [t1, granted, unknown, verdict('t1', ['clerk'], [55, 60])]
      expectBrokenByLast('stale authority', [...seen, verdict('t1', ['admin'], [61, 65])])
      expectFine([...seen, verdict('t1', ['admin'], [58, 65])])
    })

    it('ignores a change that was refused', () => {
      const unknownToken = pauseToken('t1', true, [40, 50], { status: 404, error: 'not_found' })
      expectFine([t1, unknownToken, data('t1', [51, 55])])
      expectBrokenByLast('lost session', [t1, unknownToken, data('t1', [51, 55], no)])
    })

    it('passes any order of changes that overlap, and refutes what both have replaced', () => {
      const both = [granted, setRoles('u1', ['clerk'], [40, 60]), setRoles('u1', ['cook'], [45, 55])]
      expectFine([t1, ...both, verdict('t1', ['clerk'], [61, 65])])
      expectFine([t1, ...both, verdict('t1', ['cook'], [61, 65])])
      expectBrokenByLast('stale authority', [t1, ...both, verdict('t1', ['admin'], [61, 65])])
      expectBrokenByLast('stale authority', [t1, ...both, verdict('t1', ['admin'], [56, 65])])
    })

    it('counts 403 for a lacking role as an admission, and refutes it on a route that needs none', () => {
      expectBrokenByLast('ended token', [t1, logout('t1', [20, 30]), adminData('t1', 403, [31, 40])])
      expectFine([t1, adminData('t1', 403, [900, 910]), data('t1', [1900, 1905])])
      expectBrokenByLast('single use', [
        issue('t2', [0, 10]),
        adminData('t2', 403, [20, 30]),
        adminData('t2', 403, [40, 50]),
      ])
      expectBrokenByLast('status', [t1, data('t1', [20, 30], { status: 403 })])
    })
  })

  for (const [what, pause] of [
    ['token', (paused: boolean, when: [number, number], members = {}) => pauseToken('t1', paused, when, members)],
    ['user', (paused: boolean, when: [number, number], members = {}) => pauseUser('u1', paused, when, members)],
  ] as const) {
    describe(`a paused ${what}`, () => {
      const paused = pause(true, [20, 30])
      const resumed = pause(false, [40, 50])

      it('is not admitted by a request that began after the answer and before a resume', () => {
        expectBrokenByLast('stale authority', [t1, paused, data('t1', [31, 35])])
        expectBrokenByLast('stale authority', [t1, paused, resumed, data('t1', [31, 39])])
        expectBrokenByLast('stale authority', [t1, paused, verdict('t1', [], [31, 35])])
        expectBrokenByLast('stale authority', [t1, paused, adminData('t1', 403, [31, 35])])
        expectBrokenByLast('stale authority', [t1, paused, renew('t1', 't2', [31, 35])])
        expectFine([t1, paused, data('t1', [31, 35], no)])
      })

      it('may be admitted or refused by a request that overlaps the pause or the resume', () => {
        for (const when of [
          [12, 22],
          [30, 33],
          [35, 41],
          [45, 90],
        ] as [number, number][]) {
          expectFine([t1, paused, resumed, data('t1', when)])
          expectFine([t1, paused, resumed, data('t1', when, no)])
        }
      })

      it('works again after the resume, and was not refused for good', () => {
        expectFine([t1, paused, data('t1', [31, 35], no), resumed, data('t1', [51, 55])])
        expectBrokenByLast('stale pause', [t1, paused, resumed, data('t1', [51, 55], no)])
        expectBrokenByLast('lost session', [t1, data('t1', [15, 19], no)])
        expectBrokenByLast('revived', [
          ...[t1, paused, resumed, logout('t1', [51, 52], lost)],
          ...[data('t1', [55, 60], no), data('t1', [61, 65])],
        ])
      })

      it('may be refused after its resume for another reason', () => {
        expectFine([t1, paused, resumed, logout('t1', [52, 55]), data('t1', [56, 60], no)])
        expectFine([t1, paused, resumed, data('t1', [1200, 1210], no)])
      })

      it('expires meanwhile, because a refused request extends nothing', () => {
        expectBrokenByLast('dead token', [
          ...[t1, paused, data('t1', [900, 905], no), pause(false, [910, 920])],
          data('t1', [1100, 1110]),
        ])
      })

      it('may be in either state after a change whose outcome is unknown, until the next acknowledged one', () => {
        const unknown = pause(true, [20, 30], settled)
        expectFine([t1, unknown, data('t1', [31, 35], no), data('t1', [36, 39], no)])
        expectFine([t1, unknown, data('t1', [31, 35])])
        expectBrokenByLast('stale pause', [t1, unknown, pause(false, [70, 80]), data('t1', [81, 85], no)])
        expectBrokenByLast('stale authority', [t1, unknown, pause(true, [70, 80]), data('t1', [81, 85])])
        const resuming = pause(false, [40, 50], settled)
        expectFine([t1, paused, resuming, data('t1', [51, 55], no), data('t1', [56, 60])])
        expectBrokenByLast('stale pause', [t1, paused, resuming, data('t1', [51, 55]), data('t1', [56, 60], no)])
      })
    })
  }

  it('a paused token may be renewed no more, and its pause concerns the secrets before and after a renewal', () => {
    const renewed = [t1, renew('t1', 't2', [12, 15])]
    expectBrokenByLast('stale authority', [...renewed, pauseToken('t1', true, [20, 30]), data('t2', [31, 35])])
    expectBrokenByLast('stale authority', [...renewed, pauseToken('t2', true, [20, 30]), data('t2', [31, 35])])
    expectFine([...renewed, login('u1', 't3', [0, 1]), pauseToken('t2', true, [20, 30]), data('t3', [31, 35])])
  })

  it('the pause of a user concerns all their tokens, not those of others', () => {
    const [t2, t3] = [login('u1', 't2', [0, 1]), login('u2', 't3', [0, 1])]
    const key = issue('t4', [0, 1], { kind: 'fixed', user: 'u1' })
    const paused = pauseUser('u1', true, [20, 30])
    expectFine([t1, t2, t3, key, paused, data('t3', [31, 35]), data('t4', [31, 35], no)])
    for (const token of ['t1', 't2', 't4']) {
      expectBrokenByLast('stale authority', [t1, t2, t3, key, paused, data(token, [31, 35])])
    }
  })

  it('a paused user cannot log in, and can after the resume', () => {
    const paused = pauseUser('u1', true, [20, 30])
    expectFine([paused, badLogin('u1', 0, [31, 40])])
    expectBrokenByLast('stale authority', [paused, login('u1', 't2', [31, 40])])
    expectFine([paused, login('u1', 't2', [30, 40])])
    const resumed = pauseUser('u1', false, [50, 60])
    expectBrokenByLast('right password', [paused, resumed, badLogin('u1', 0, [61, 70])])
    expectFine([paused, resumed, login('u1', 't2', [61, 70])])
  })

  it('a look reads the pause too', () => {
    const look = line('validate', [31, 35], { token: 't1', touch: false })
    expectBrokenByLast('stale authority', [t1, pauseToken('t1', true, [20, 30]), look])
  })
})
