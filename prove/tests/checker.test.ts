// The checker of recorded histories: what each rule accepts and what it refutes, in hand-made histories and in the
// histories of a model.
import { expect } from 'chai'
import fc from 'fast-check'
import { checkHistory, type Rule } from '../checker.ts'
import { type Operation, readHistory } from '../history.ts'
import {
  badLogin,
  change,
  data,
  endAll,
  expectBrokenByLast,
  expectFine,
  fault,
  header,
  issue,
  type Line,
  line,
  linesOf,
  login,
  logout,
  lost,
  no,
  renew,
} from './historyLines.ts'
import { type FaultKind, type Flaw, flaws, modelHeader, record, rename } from './model.ts'

describe('checkHistory', () => {
  const t1 = login('u1', 't1', [0, 10])

  describe('an ended token is not admitted by a request that begins after the acknowledgement', () => {
    it('refutes a token that outlives its log-out', () => {
      expectBrokenByLast('ended token', [t1, logout('t1', [20, 30]), data('t1', [31, 40])])
    })

    it('passes a request that began at or before the acknowledgement, however late its answer', () => {
      expectFine([t1, logout('t1', [20, 30]), data('t1', [30, 900]), data('t1', [25, 28])])
    })

    it('passes either outcome of a request after a log-out whose outcome is unknown', () => {
      expectFine([t1, logout('t1', [20, 30], lost), data('t1', [40, 50]), data('t1', [60, 70], no)])
    })

    it('refutes the old secret of a renewed session', () => {
      expectBrokenByLast('ended token', [t1, renew('t1', 't2', [20, 30]), data('t2', [31, 35]), data('t1', [36, 40])])
    })

    it('refutes a session that outlives a log-out with one of its earlier secrets', () => {
      const renewed = [t1, renew('t1', 't2', [20, 30]), renew('t2', 't3', [40, 50])]
      expectBrokenByLast('ended token', [...renewed, logout('t1', [60, 70]), data('t3', [71, 80])])
      expectBrokenByLast('ended token', [...renewed, logout('t2', [35, 70]), data('t3', [71, 80])])
    })

    it('refutes a session that was ended by its id, even with its next secret', () => {
      const ended = line('endSession', [40, 50], { token: null, target: 't1' })
      expectBrokenByLast('ended token', [t1, renew('t1', 't2', [20, 30]), ended, data('t2', [51, 60])])
    })

    it('refutes a session that outlives the end of all sessions', () => {
      expectBrokenByLast('ended token', [t1, endAll('u1', [20, 30]), data('t1', [31, 40])])
    })

    it('counts the first acknowledgement of several that overlap', () => {
      expectBrokenByLast('ended token', [t1, endAll('u1', [20, 100]), endAll('u1', [30, 40]), data('t1', [41, 50])])
    })

    it('counts every answer that only a live session gets as admitted', () => {
      const ended = [t1, logout('t1', [20, 30])]
      const conflict = change('u1', 't1', [0, 1], [31, 40], { status: 409, error: 'conflict' })
      const wrong = change('u1', 't1', [null, 1], [31, 40], { status: 401, error: 'invalid_credentials' })
      const unknownId = line('endSession', [31, 40], { token: 't1', target: 't9', status: 404, error: 'not_found' })
      for (const answer of [conflict, wrong, unknownId]) expectBrokenByLast('ended token', [...ended, answer])
      expectFine([...ended, change('u1', 't1', [0, 1], [31, 40], { ...no, error: 'invalid_token' })])
    })

    it('passes a session that began during or after the end of all sessions', () => {
      const t2 = login('u1', 't2', [25, 40])
      const t3 = login('u1', 't3', [31, 40])
      expectFine([t1, endAll('u1', [20, 30]), t2, t3, data('t2', [50, 60]), data('t3', [50, 60])])
      expectFine([t1, endAll('u1', [20, 30]), t2, data('t2', [50, 60], no)])
    })

    it('refutes other sessions after a password change, and passes the one that made it', () => {
      const t2 = login('u1', 't2', [0, 10])
      const changed = change('u1', 't1', [0, 1], [20, 30])
      expectBrokenByLast('ended token', [t1, t2, changed, data('t1', [31, 40]), data('t2', [41, 50])])
    })

    it('refutes a session whose log-in with the old password raced the change', () => {
      const raced = login('u1', 't2', [25, 45])
      const changed = change('u1', 't1', [0, 1], [20, 30])
      expectFine([t1, raced, changed, data('t2', [46, 50], no)])
      expectBrokenByLast('ended token', [t1, raced, changed, data('t2', [46, 50])])
    })

    it('passes a session of the new password that began before the change was acknowledged', () => {
      const early = login('u1', 't2', [22, 28], { password: 1 })
      expectFine([t1, change('u1', 't1', [0, 1], [20, 30]), early, data('t2', [31, 40])])
    })

    it('passes the session that the first attempt of a change kept, and refutes others', () => {
      const first = change('u1', 't1', [0, 1], [20, 30], lost)
      const t2 = login('u1', 't2', [0, 10])
      const again = change('u1', 't2', [0, 1], [40, 50])
      expectFine([t1, t2, first, again, data('t1', [60, 70]), data('t2', [60, 70])])
      const t3 = login('u1', 't3', [0, 10])
      expectBrokenByLast('ended token', [t1, t2, t3, first, again, data('t3', [60, 70])])
    })

    it('refutes issued tokens of a user after a password change', () => {
      const key = issue('t2', [0, 10], { kind: 'fixed', user: 'u1' })
      expectBrokenByLast('ended token', [t1, key, change('u1', 't1', [0, 1], [20, 30]), data('t2', [31, 40])])
    })
  })

  describe('a dead token is not admitted', () => {
    it('refutes a token that was unused for longer than its idle time', () => {
      expectFine([t1, data('t1', [1019, 1020])])
      expectBrokenByLast('dead token', [t1, data('t1', [1021, 1025])])
    })

    it('counts the idle time from the end of the last successful request', () => {
      expectFine([t1, data('t1', [900, 950]), data('t1', [1955, 1960])])
      expectBrokenByLast('dead token', [t1, data('t1', [900, 950]), data('t1', [1961, 1965])])
    })

    it('counts a request of unknown outcome as one that may have extended the token, until it is settled', () => {
      const unknown = data('t1', [900, 950], { ...lost, settledMs: 1000 })
      expectFine([t1, unknown, data('t1', [2005, 2007])])
      expectBrokenByLast('dead token', [t1, unknown, data('t1', [2011, 2012])])
    })

    it('allows one idle time for a request that is never settled', () => {
      const unknown = data('t1', [900, 950], lost)
      expectFine([t1, unknown, data('t1', [2015, 2017])])
      expectBrokenByLast('dead token', [t1, unknown, data('t1', [2021, 2022])])
    })

    it('does not count a look, a refusal or a late request as an extension', () => {
      const look = line('validate', [900, 905], { token: 't1', touch: false })
      expectBrokenByLast('dead token', [t1, look, data('t1', [1100, 1110])])
      const late = data('t1', [1030, 1040], { ...lost, settledMs: 1041 })
      expectBrokenByLast('dead token', [t1, late, data('t1', [1100, 1110])])
    })

    it('refutes a token that was used continuously beyond its absolute end', () => {
      const uses = Array.from({ length: 6 }, (_, number) => data('t1', [900 * number + 500, 900 * number + 510]))
      expectBrokenByLast('dead token', [t1, ...uses.slice(0, 5), data('t1', [4900, 4901]), data('t1', [5021, 5022])])
      expectFine([t1, ...uses.slice(0, 5), data('t1', [5020, 5022])])
    })

    it('keeps the absolute end of a session that is renewed', () => {
      const renewals = [800, 1600, 2400, 3200, 4000, 4800].map((begin, number) =>
        renew(`t${number + 1}`, `t${number + 2}`, [begin, begin + 5]),
      )
      expectBrokenByLast('dead token', [t1, ...renewals, data('t7', [5050, 5060])])
    })

    it('allows the time by which a clock was set back', () => {
      expectFine([t1, fault([100, 110], { clockShiftMs: -500 }), data('t1', [1500, 1510])])
      expectBrokenByLast('dead token', [t1, fault([100, 110], { clockShiftMs: -500 }), data('t1', [1521, 1525])])
    })
  })

  describe('a live session is not lost', () => {
    it('refutes a refusal that nothing explains, even during a fault', () => {
      expectBrokenByLast('lost session', [t1, data('t1', [20, 30]), data('t1', [40, 50], no)])
      const away = fault([35, 60], { disconnects: ['auth'] })
      expectBrokenByLast('lost session', [t1, data('t1', [20, 30]), away, data('t1', [40, 50], no)])
    })

    it('refutes 429 for a live token, because it is for dead ones only', () => {
      expectBrokenByLast('lost session', [t1, data('t1', [40, 50], { status: 429 })])
    })

    it('passes a refusal that overlaps an end, acknowledged or not', () => {
      expectFine([t1, data('t1', [20, 30], no), logout('t1', [30, 40])])
      expectFine([
        t1,
        data('t1', [20, 30], no),
        endAll('u1', [25, 40], { status: null, asked: 'nobody', expectsDisconnect: true }),
      ])
      expectBrokenByLast('lost session', [t1, logout('t1', [31, 40]), data('t1', [20, 30], no)])
    })

    it('passes a refusal when the token may have expired, and refutes it before', () => {
      expectFine([t1, data('t1', [980, 990], no)])
      expectBrokenByLast('lost session', [t1, data('t1', [980, 989], no)])
      expectFine([t1, data('t1', [500, 600]), data('t1', [1480, 1490], no)])
      expectBrokenByLast('lost session', [t1, data('t1', [500, 600]), data('t1', [1480, 1489], no)])
    })

    it('passes the refusal of tokens issued before the end of a fault that loses tokens', () => {
      const emptied = fault([20, 40], { losesTokens: true })
      expectFine([t1, emptied, data('t1', [50, 60], no)])
      expectBrokenByLast('lost session', [t1, emptied, login('u1', 't2', [41, 50]), data('t2', [60, 70], no)])
    })

    it('passes a refusal of the oldest session beyond the limit', () => {
      const [t2, t3] = [login('u1', 't2', [20, 30]), login('u1', 't3', [30, 40])]
      expectFine([t1, t2, t3, data('t1', [50, 60], no)], { tokenLimitPerUser: 2 })
      expectBrokenByLast('lost session', [t1, t2, t3, data('t2', [50, 60], no)], { tokenLimitPerUser: 2 })
    })

    it('counts older tokens that are not sessions, which are never evicted', () => {
      const key = issue('t0', [0, 1], { kind: 'fixed', user: 'u1' })
      const [t2, t3] = [login('u1', 't2', [20, 30]), login('u1', 't3', [31, 40])]
      expectFine([key, t2, t3, data('t2', [50, 60], no)], { tokenLimitPerUser: 2 })
      expectBrokenByLast('lost session', [key, t2, t3, data('t0', [50, 60], no)], { tokenLimitPerUser: 2 })
    })

    it('passes a refusal of the session that became the oldest because the clock was set back', () => {
      const [t2, t3, t4] = [login('u1', 't2', [20, 30]), login('u1', 't3', [40, 50]), login('u1', 't4', [60, 70])]
      const limits = { tokenLimitPerUser: 2 }
      expectFine([t1, t2, fault([32, 33], { clockShiftMs: -500 }), t3, t4, data('t3', [80, 90], no)], limits)
      expectBrokenByLast('lost session', [t1, t2, t3, t4, data('t3', [80, 90], no)], limits)
    })

    it('refutes the loss of the session that changed the password', () => {
      const changed = change('u1', 't1', [0, 1], [20, 30])
      expectBrokenByLast('lost session', [t1, changed, data('t1', [31, 40], no)])
    })

    it('passes its loss if another change was not finished', () => {
      expectFine([t1, endAll('u1', [5, 8], lost), change('u1', 't1', [0, 1], [20, 30]), data('t1', [31, 40], no)])
      expectFine([t1, endAll('u1', [28, 35]), change('u1', 't1', [0, 1], [20, 30]), data('t1', [31, 40], no)])
    })

    it('passes its loss even if that other change is older than the session', () => {
      const unknown = change('u1', 't1', [0, 1], [20, 30], { ...lost, settledMs: 31 })
      const t2 = login('u1', 't2', [40, 50], { password: 1 })
      expectFine([t1, unknown, t2, change('u1', 't2', [1, 2], [60, 70]), data('t2', [80, 90], no)])
      const known = change('u1', 't1', [0, 1], [20, 30])
      const kept = [t1, known, t2, change('u1', 't2', [1, 2], [60, 70])]
      expectBrokenByLast('lost session', [...kept, data('t2', [80, 90], no)])
    })

    it('refutes the loss of a session of the new password', () => {
      const unknown = change('u1', 't1', [0, 1], [20, 30], lost)
      const t2 = login('u1', 't2', [40, 50], { password: 1 })
      expectBrokenByLast('lost session', [t1, unknown, t2, data('t2', [60, 70], no)])
    })

    it('refutes the loss of a token that was issued after the new password had worked', () => {
      const unknown = change('u1', 't1', [0, 1], [20, 30], lost)
      const t2 = login('u1', 't2', [40, 50], { password: 1 })
      const key = (when: [number, number]) => issue('t3', when, { kind: 'fixed', user: 'u1' })
      expectFine([t1, unknown, t2, key([45, 60]), data('t3', [70, 80], no)])
      expectBrokenByLast('lost session', [t1, unknown, t2, key([51, 60]), data('t3', [70, 80], no)])
    })

    it('passes a refusal that began before the token was issued', () => {
      expectFine([t1, data('t1', [9, 20], no)])
    })

    it('passes a loss because the clock was set forward', () => {
      expectFine([t1, fault([100, 110], { clockShiftMs: 900 }), data('t1', [200, 210], no)])
      const late = [t1, fault([100, 110], { clockShiftMs: 900 }), data('t1', [120, 125]), data('t1', [200, 210], no)]
      expectBrokenByLast('lost session', late)
    })
  })

  it('refutes a token that is admitted after a refusal', () => {
    expectFine([t1, data('t1', [20, 30], no), data('t1', [25, 35]), logout('t1', [22, 28], lost)])
    expectBrokenByLast('revived', [t1, logout('t1', [20, 28], lost), data('t1', [30, 35], no), data('t1', [36, 40])])
  })

  it('refutes a token that is admitted after a refusal, even if the clock was set back', () => {
    const shift = fault([1040, 1050], { clockShiftMs: -500 })
    expectBrokenByLast('revived', [t1, data('t1', [1020, 1030], no), shift, data('t1', [1060, 1070])])
  })

  describe('a session may end when an earlier secret is reused', () => {
    const long = { tokenTtlMs: 60_000, tokenAbsoluteTtlMs: 120_000 }
    const renewed = [t1, renew('t1', 't2', [20, 30])]
    const gone = data('t2', [20_000, 20_010], no)

    it('passes its loss after a use more than ten seconds after the renewal, whatever its outcome', () => {
      for (const members of [no, lost]) expectFine([...renewed, data('t1', [10_020, 10_040], members), gone], long)
      expectFine(
        [...renewed, renew('t2', 't3', [40, 50]), data('t1', [10_060, 10_070], no), { ...gone, token: 't3' }],
        long,
      )
    })

    it('refutes its loss after a use within ten seconds, a look, or none', () => {
      expectBrokenByLast('lost session', [...renewed, gone], long)
      expectBrokenByLast('lost session', [...renewed, data('t1', [9_900, 9_980], no), gone], long)
      const look = line('validate', [15_000, 15_010], { token: 't1', touch: false, ...no })
      expectBrokenByLast('lost session', [...renewed, look, gone], long)
    })

    it('refutes its loss before that use, and after the use of the current secret', () => {
      const reuse = data('t1', [15_000, 15_010], no)
      expectBrokenByLast('lost session', [...renewed, reuse, data('t2', [14_000, 14_900], no)], long)
      expectBrokenByLast('lost session', [...renewed, data('t2', [15_000, 15_010]), gone], long)
    })
  })

  describe('a single-use token is admitted once', () => {
    const t2 = issue('t2', [0, 10])

    it('refutes the second admission, even if both overlap', () => {
      expectBrokenByLast('single use', [t2, data('t2', [20, 30]), data('t2', [25, 35])])
    })

    it('passes an admission after a use of unknown outcome, and refusals after that', () => {
      expectFine([t2, data('t2', [20, 30], lost), data('t2', [40, 50]), data('t2', [60, 70], no)])
      expectFine([t2, data('t2', [20, 30], lost), data('t2', [40, 50], no)])
    })

    it('does not count a look as consumption', () => {
      const look = line('validate', [20, 30], { token: 't2', touch: false })
      expectFine([t2, look, look, data('t2', [40, 50])].map(each => ({ ...each })))
      expectBrokenByLast('lost session', [t2, look, data('t2', [40, 50], no)])
      expectBrokenByLast('ended token', [t2, data('t2', [10, 15]), { ...look }])
    })
  })

  describe('a token opens what it was issued for', () => {
    it('refutes /data for a token with a purpose, and account routes for a token that is not a session', () => {
      expectBrokenByLast('wrong purpose', [issue('t2', [0, 10], { purpose: 'reset' }), data('t2', [20, 30])])
      const list = (status: number) => line('list', [20, 30], { token: 't2', status })
      expectFine([issue('t2', [0, 10], { kind: 'fixed', user: 'u1' }), list(401)])
      expectBrokenByLast('wrong purpose', [issue('t2', [0, 10], { kind: 'fixed', user: 'u1' }), list(200)])
    })

    it('passes its refusal for other purposes', () => {
      const right = line('validate', [40, 50], { token: 't2', touch: true, purpose: 'reset' })
      expectFine([issue('t2', [0, 10], { purpose: 'reset' }), data('t2', [20, 30], no), right])
    })
  })

  describe('an answer belongs to its user', () => {
    it('refutes the name of another user, and a name for a guest', () => {
      expectFine([
        t1,
        data('t1', [20, 30], { seenUser: 'u1' }),
        issue('t2', [0, 1]),
        data('t2', [2, 3], { seenUser: null }),
      ])
      expectBrokenByLast('wrong owner', [t1, data('t1', [20, 30], { seenUser: 'u2' })])
      expectBrokenByLast('wrong owner', [t1, data('t1', [20, 30], { seenUser: null })])
    })

    it('refutes the sessions of another user in a list', () => {
      const t2 = login('u2', 't2', [0, 10])
      expectBrokenByLast('wrong owner', [t1, t2, line('list', [20, 30], { token: 't1', seenTokens: ['t1', 't2'] })])
    })

    it('refutes the id of another token, and passes an earlier one of the same session', () => {
      const seen = (seenToken: string) => line('validate', [40, 50], { token: 't3', touch: true, seenToken })
      const before = [t1, login('u1', 't2', [0, 10]), renew('t1', 't3', [20, 30])]
      expectFine([...before, seen('t1')])
      expectBrokenByLast('wrong owner', [...before, seen('t2')])
    })

    it('refutes the same token for two log-ins, and a token that was never issued', () => {
      expectBrokenByLast('issued twice', [t1, login('u2', 't1', [0, 10])])
      expectFine([data('t9', [0, 10], no), logout('t9', [0, 10])])
      expectBrokenByLast('never issued', [data('t9', [0, 10])])
    })
  })

  describe('exactly one of the old and the new password works', () => {
    const changed = change('u1', 't1', [0, 1], [20, 30])
    const unknown = change('u1', 't1', [0, 1], [20, 30], lost)
    const settled = { ...unknown, settledMs: 35 }
    const withOld = (when: [number, number]) => login('u1', `old${when[0]}`, when)
    const withNew = (when: [number, number]) => login('u1', `new${when[0]}`, when, { password: 1 })

    it('refutes the old one after an acknowledged change, and passes it before', () => {
      expectFine([t1, changed, withOld([30, 40])])
      expectBrokenByLast('old password', [t1, changed, withOld([31, 40])])
    })

    it('refutes the old one after the new one has worked', () => {
      expectFine([t1, unknown, withOld([40, 50]), withNew([60, 70])])
      expectBrokenByLast('old password', [t1, unknown, withNew([60, 70]), withOld([71, 80])])
    })

    it('refutes the old one after it was refused', () => {
      expectBrokenByLast('old password', [t1, unknown, badLogin('u1', 0, [40, 50]), withOld([51, 60])])
    })

    it('refutes a refusal of the right one, and of both', () => {
      expectBrokenByLast('right password', [t1, badLogin('u1', 0, [20, 30])])
      expectBrokenByLast('right password', [t1, changed, badLogin('u1', 1, [31, 40])])
      expectFine([t1, unknown, badLogin('u1', 1, [31, 40]), badLogin('u1', 0, [41, 50])])
      expectBrokenByLast('right password', [t1, unknown, badLogin('u1', 0, [31, 40]), badLogin('u1', 1, [41, 50])])
      expectBrokenByLast('right password', [t1, settled, badLogin('u1', 1, [36, 40]), badLogin('u1', 0, [41, 50])])
    })

    it('refutes the new one if its change was settled without it', () => {
      expectFine([t1, unknown, withOld([36, 40]), withNew([41, 50])])
      expectBrokenByLast('password never set', [t1, settled, withOld([36, 40]), withNew([41, 50])])
      expectBrokenByLast('password never set', [t1, settled, badLogin('u1', 1, [36, 40]), withNew([41, 50])])
      expectBrokenByLast('password never set', [t1, settled, withNew([36, 50]), withOld([40, 45])])
      const refused = change('u1', 't1', [0, 1], [20, 30], { status: 409 })
      expectBrokenByLast('password never set', [t1, refused, withNew([41, 50])])
      expectBrokenByLast('password never set', [t1, login('u1', 't2', [20, 30], { password: null })])
    })

    it('refutes two changes of the same password', () => {
      expectBrokenByLast('two changes', [t1, changed, change('u1', 't1', [0, 2], [20, 30])])
      expectFine([t1, changed, change('u1', 't1', [0, 2], [20, 30], { status: 401, error: 'invalid_credentials' })])
    })

    it('passes a repeated change', () => {
      expectFine([t1, unknown, change('u1', 't1', [0, 1], [40, 50]), withNew([60, 70])])
    })

    it('passes a log-in that loses against the end of all sessions', () => {
      expectFine([t1, endAll('u1', [20, 30]), badLogin('u1', 0, [30, 40])])
      expectBrokenByLast('right password', [t1, endAll('u1', [20, 30]), badLogin('u1', 0, [31, 40])])
    })

    it('passes a user who is not yet registered or was forgotten', () => {
      const registered = line('register', [20, 30], { user: 'u2' })
      expectFine([badLogin('u2', 0, [0, 10]), registered, badLogin('u2', 0, [30, 40])])
      expectBrokenByLast('right password', [registered, badLogin('u2', 0, [31, 40])])
      expectFine([t1, fault([20, 30], { losesUsers: true }), badLogin('u1', 0, [40, 50])])
    })
  })

  describe('every answer is in the contract', () => {
    it('refutes 500 and 502, even during a fault', () => {
      const away = fault([0, 60], { disconnects: ['business'] })
      expectFine([t1, away, data('t1', [20, 30], { status: 503 })])
      expectBrokenByLast('status', [t1, away, data('t1', [20, 30], { status: 500 })])
      expectBrokenByLast('status', [t1, away, data('t1', [20, 30], { status: 502 })])
      expectBrokenByLast('status', [t1, data('t1', [20, 30], { status: 404 })])
    })

    it('refutes a 401 of the wrong kind', () => {
      expectBrokenByLast('status', [t1, logout('t1', [20, 30], no)])
      expectBrokenByLast('status', [badLogin('u1', null, [0, 10], { error: 'invalid_token' })])
    })

    it('refutes a missing answer, unless a fault affects the listener or the client disconnected', () => {
      const none = { status: null }
      expectFine([t1, data('t1', [60, 70], none), fault([30, 40], { disconnects: ['business'], recoveredMs: 60 })])
      expectFine([t1, data('t1', [60, 70], { ...none, expectsDisconnect: true })])
      expectFine([t1, data('t1', [60, 70], none), fault([0, 59], { disconnects: ['business'], recoveredMs: null })])
      expectBrokenByLast('status', [t1, fault([0, 59], { disconnects: ['business'] }), data('t1', [60, 70], none)])
      expectBrokenByLast('status', [t1, fault([0, 80], { disconnects: ['auth'] }), data('t1', [60, 70], none)])
    })
  })

  it('checks ten thousand operations a second, even if all are of one user', () => {
    const { operations } = record({ seed: 7, operations: 4000, clients: 40, users: 30 })
    const copies: Operation[] = []
    for (let copy = 0; copy < 10; copy++) {
      for (const operation of operations) copies.push(rename(operation, copy))
    }
    const chain: Line[] = [login('u1', 't0', [0, 1])]
    for (let number = 0; number < 2000; number++) {
      const from = 50 * number + 10
      chain.push(change('u1', `t${number}`, [number, number + 1], [from, from + 5], number % 2 ? {} : lost))
      chain.push(login('u1', `t${number + 1}`, [from + 10, from + 15], { password: number + 1 }))
      chain.push(endAll('u1', [from + 16, from + 17], lost))
      chain.push(data(`t${number + 1}`, [from + 20, from + 25]), data(`t${number}`, [from + 20, from + 25], no))
    }
    for (const history of [
      { header: modelHeader, operations: copies, faults: [] },
      readHistory(linesOf(chain, { tokenLimitPerUser: 5000 })),
    ]) {
      const began = performance.now()
      expect(checkHistory(history)).to.deep.equal([])
      expect(performance.now() - began).to.be.below(history.operations.length / 10)
    }
  })
})

describe('readHistory', () => {
  const good = linesOf([login('u1', 't1', [0, 10]), data('t1', [20, 30]), fault([5, 6])])
  const withLine = (members: Line) => [...good, JSON.stringify({ id: 9, ...members })]

  it('reads the lines in any order', () => {
    const { operations, faults } = readHistory([good[0], good[3], good[2], '', good[1]] as string[])
    expect(operations.map(({ id }) => id)).to.deep.equal([2, 1])
    expect(faults).to.have.length(1)
  })

  const refused: Record<string, [string[], RegExp]> = {
    'an empty file': [[], /^line 1: no header/],
    'a file without its header': [good.slice(1), /^line 1: no header of a latchkey-history/],
    'another version': [[JSON.stringify({ ...header, version: 2 })], /^line 1: .*version/],
    'a line that was cut off': [[...good, '{"id":9,"op":"da'], /^line 5: not JSON/],
    'an unknown operation': [withLine({ op: 'dance' }), /^line 5: op/],
    'a missing member': [withLine({ ...data('t1', [0, 1]), token: undefined }), /^line 5: token/],
    'a repeated id': [withLine({ ...data('t1', [0, 1]), id: 2 }), /^line 5: the id 2 was used before/],
    'an end before the beginning': [withLine(data('t1', [2, 1])), /^line 5: endMs is before beginMs/],
    'an outcome that contradicts its status': [
      withLine({ ...data('t1', [0, 1]), outcome: 'unknown' }),
      /^line 5: a status of 200 is ok/,
    ],
    'a log-in without its token': [
      withLine({ ...login('u1', 't2', [0, 1]), token: undefined }),
      /^line 5: an ok without/,
    ],
    'a password with two predecessors': [
      [
        ...withLine(change('u1', 't1', [0, 2], [0, 1])),
        JSON.stringify({ id: 10, ...change('u1', 't1', [1, 2], [0, 1]) }),
      ],
      /^line 6: password 2 of u1 follows both 0 and 1/,
    ],
  }
  for (const [what, [lines, words]] of Object.entries(refused)) {
    it(`refuses ${what}, and names the line`, () => {
      expect(() => readHistory(lines)).to.throw(words)
    })
  }
})

describe('checkHistory, with histories of a model of Latchkey,', () => {
  it('never refutes a model that keeps every promise, whatever overlaps, hangs, crashes or is lost', () => {
    const runs = fc.record({
      seed: fc.nat(),
      operations: fc.integer({ min: 50, max: 1200 }),
      clients: fc.integer({ min: 2, max: 25 }),
      users: fc.integer({ min: 1, max: 8 }),
      shareUnknown: fc.constantFrom(0, 0.05, 0.3),
      faults: fc.constantFrom<FaultKind[]>([], ['empties'], ['clock'], ['empties', 'clock']),
    })
    fc.assert(
      fc.property(runs, run => {
        expect(checkHistory(record(run))).to.deep.equal([])
      }),
      { numRuns: 60 },
    )
  })

  for (const [flaw, rule] of Object.entries(flaws)) {
    it(`refutes a model that ${flaw}`, () => {
      const found = new Set<Rule>()
      for (let seed = 1; seed <= 12 && !found.has(rule); seed++) {
        const history = record({ seed, operations: 1000, clients: 15, users: 4, flaw: flaw as Flaw })
        for (const violation of checkHistory(history)) found.add(violation.rule)
      }
      expect([...found]).to.include(rule)
    })
  }
})
