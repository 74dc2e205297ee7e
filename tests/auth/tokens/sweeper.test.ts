// tokens/sweeper.ts: frees dead tokens, whatever the store does.
import { EventEmitter, once } from 'node:events'
import { expect } from 'chai'
import { openTokenStore } from '../../../services/auth/stores/memory/tokenStore.ts'
import { noAuthority } from '../../../services/auth/stores/tokenPort.ts'
import { createSweeper, type SweepEvent, type SweeperOptions } from '../../../services/auth/tokens/sweeper.ts'
import { createTokens } from '../../../services/auth/tokens/tokens.ts'
import { createClock } from '../../support/clock.ts'

type Slice = { removed: number; done: boolean }

describe('the sweeper', () => {
  const told = new EventEmitter()
  const emit = (event: SweepEvent) => void told.emit(event.type, event)
  const nextEvent = async (type: SweepEvent['type']) => (await once(told, type))[0] as SweepEvent

  const sweeperOver = (store: SweeperOptions['store']) =>
    createSweeper({
      store,
      intervalMs: 1,
      now: Date.now,
      isSteady: () => true,
      monotonicNow: () => performance.now(),
      emit,
    })

  it('removes dead tokens automatically, reports how many, and keeps live ones', async () => {
    const store = await openTokenStore()
    const clock = createClock()
    const limits = { perUser: 10_000, total: 10_000 }
    const tokens = createTokens({ store, now: clock.now, ttlMs: 1000, absoluteTtlMs: 9000, limits, emit: () => {} })
    const owner = { id: 'user-1', username: 'somebody', credentialVersion: 1, authority: noAuthority }
    for (let i = 0; i < 2500; i++) await tokens.issueSession(owner)
    clock.advance(1000)
    const live = await tokens.issueSession(owner)
    const sweeper = createSweeper({
      store,
      intervalMs: 1,
      now: clock.now,
      isSteady: () => true,
      monotonicNow: () => performance.now(),
      emit,
    })
    const swept = nextEvent('swept')
    sweeper.start()
    expect(await swept).to.include({ removed: 2500 })
    expect(await sweeper.sweep()).to.equal(0)
    expect(await tokens.validateAll([live?.secret ?? ''], { purpose: null, touch: true })).to.not.deep.equal([null])
    await sweeper.stop()
  })

  it('yields to other work after 2 ms, not after each slice', async () => {
    let clockMs = 0
    let slices = 0
    const turnsBefore: number[] = []
    let turns = 0
    const store = {
      async deleteExpired(): Promise<Slice> {
        turnsBefore.push(turns)
        setImmediate(() => turns++)
        clockMs += 0.7 // three slices take more than 2 ms
        return { removed: 1, done: ++slices === 9 }
      },
    }
    const sweeper = createSweeper({
      store,
      intervalMs: 1,
      now: Date.now,
      isSteady: () => true,
      monotonicNow: () => clockMs,
      emit,
    })
    expect(await sweeper.sweep()).to.equal(9)
    const waits = turnsBefore.map((turn, i) => i > 0 && turn > (turnsBefore[i - 1] as number))
    expect(waits).to.deep.equal([false, false, false, true, false, false, true, false, false])
  })

  it('rests after a slice four times as long as it took, and not while a caller waits', async () => {
    let clockMs = 0
    let sliceMs = 10
    const startedAt: number[] = []
    const store = {
      async deleteExpired(): Promise<Slice> {
        startedAt.push(performance.now())
        clockMs += sliceMs
        return { removed: 1, done: startedAt.length === 3 }
      },
    }
    const options = { store, intervalMs: 1, now: Date.now, isSteady: () => true, monotonicNow: () => clockMs, emit }
    const gaps = () => startedAt.slice(1).map((at, i) => at - (startedAt[i] as number))
    const sweeper = createSweeper(options)
    const swept = nextEvent('swept')
    sweeper.start()
    await swept
    await sweeper.stop()
    for (const gap of gaps()) expect(gap).to.be.at.least(39) // a timer may be early by a part of a millisecond

    startedAt.length = 0
    sliceMs = 1_000_000 // a rest would be longer than the test may take
    await createSweeper(options).sweep()
    expect(startedAt).to.have.lengthOf(3)
  })

  it('runs one sweep at a time: a request during a sweep joins it', async () => {
    let running = 0
    let most = 0
    const gate = Promise.withResolvers<void>()
    const store = {
      async deleteExpired(): Promise<Slice> {
        most = Math.max(most, ++running)
        await gate.promise
        running--
        return { removed: 0, done: true }
      },
    }
    const sweeper = sweeperOver(store)
    sweeper.start()
    const sweeps = [sweeper.sweep(), sweeper.sweep()]
    setTimeout(gate.resolve, 20) // long enough for the timer to fire several times
    await Promise.all(sweeps)
    await sweeper.stop()
    expect(most).to.equal(1)
  })

  it('reports a failed sweep and continues', async () => {
    let calls = 0
    const store = {
      async deleteExpired(): Promise<Slice> {
        if (++calls === 1) throw new Error('the store is away')
        return { removed: 7, done: true }
      },
    }
    const sweeper = sweeperOver(store)
    const failed = nextEvent('sweep_failed')
    const swept = nextEvent('swept')
    sweeper.start()
    expect(((await failed) as { cause: Error }).cause.message).to.equal('the store is away')
    expect(await swept).to.include({ removed: 7 })
    await sweeper.stop()
  })

  it('stops after the current slice and starts no other', async () => {
    let calls = 0
    const gate = Promise.withResolvers<void>()
    const started = Promise.withResolvers<void>()
    const store = {
      async deleteExpired(): Promise<Slice> {
        calls++
        started.resolve()
        await gate.promise
        return { removed: 1, done: false }
      },
    }
    const sweeper = sweeperOver(store)
    sweeper.start()
    await started.promise
    let stopped = false
    const stop = sweeper.stop().then(() => {
      stopped = true
    })
    await new Promise(setImmediate)
    expect(stopped).to.equal(false)
    gate.resolve()
    await stop
    expect(calls).to.equal(1)
  })
})
