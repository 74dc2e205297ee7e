// Servers that break a promise, each in one way, and whether the driver and the checker find it out. The sources are
// copied; the text of each must be there exactly once.
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createRandom } from '../support/random.ts'
import { drive } from './drive.ts'
import { faultKinds } from './faults.ts'
import { judge } from './judgement.ts'
import type { StoreName } from './pair.ts'

interface Mutant {
  /** What is wrong then. */
  name: string
  file: string
  find: string
  replace: string
  storeName: StoreName
  /** What the fault's name begins with, where it takes one to show. */
  fault?: string
}

const tokens = 'services/auth/tokens/tokens.ts'
const users = 'services/auth/users/users.ts'
const authClient = 'services/business/authClient.ts'

const mutants: Mutant[] = [
  {
    name: 'a log-out is answered and not done',
    file: tokens,
    find: 'if (!isSession(seen)) return false\n      const token = await ask(store.delete(ref, now()))',
    replace: 'if (!isSession(seen)) return false\n      const token = seen',
    storeName: 'redis',
  },
  {
    name: 'DELETE /sessions/:id is answered and not done',
    file: tokens,
    find: 'const token = await ask(store.deleteById(id, now()))\n      if (token) tell',
    replace:
      'const [token = null] = await ask(store.look([], now(), null))\n      if (id) return true\n      if (token) tell',
    storeName: 'memory',
  },
  {
    name: 'a verdict is cached for a second',
    file: authClient,
    find: '    const batch = join(token, caller)\n    const at = batch.tokens.length - 1\n    return (await batch.verdicts.promise)[at] as Verdict',
    replace: `    const cache = ((pool as any).cache ??= new Map())
    const known = cache.get(token)
    if (known && known.until > monotonicNow()) return known.verdict
    const batch = join(token, caller)
    const at = batch.tokens.length - 1
    const verdict = (await batch.verdicts.promise)[at] as Verdict
    cache.set(token, { verdict, until: monotonicNow() + 1000 })
    return verdict`,
    storeName: 'memory',
  },
  {
    name: 'a request joins a call that has left already',
    file: authClient,
    find: '    const batch = join(token, caller)\n',
    replace: `    for (const { tokens, verdicts } of [...inFlight].flatMap(({ batches }) => batches)) {
      if (tokens.includes(token)) return (await verdicts.promise)[tokens.indexOf(token)] as Verdict
    }
    const batch = join(token, caller)\n`,
    storeName: 'memory',
    fault: 'Auth answers Business 300 ms late',
  },
  {
    name: 'tokens are read, then written',
    file: tokens,
    find: "await ask(store[touch ? 'touch' : 'look'](wellFormed, at, purpose))",
    replace: `await ask(store.look(wellFormed, at, purpose).then(async seen => {
      if (touch) await store.touch(wellFormed, at, purpose)
      return seen
    }))`,
    storeName: 'redis',
  },
  {
    name: 'the answers of a batch are swapped',
    file: 'services/auth/routes/validateToken.ts',
    find: '{ verdicts: found.map(verdictOf) }',
    replace: '{ verdicts: found.toReversed().map(verdictOf) }',
    storeName: 'sqlite',
  },
  {
    name: '401 where Auth gives no verdict',
    file: 'services/business/requireToken.ts',
    find: 'await auth.validate(readBearerToken(ctx.req), ctx.state)',
    replace:
      'await auth.validate(readBearerToken(ctx.req), ctx.state).catch(() => ({ authenticated: false }) as const)',
    storeName: 'sqlite',
    fault: 'Auth is killed',
  },
  {
    name: 'who is answered nonsense is let in',
    file: authClient,
    find: "if (answer.headers['x-request-id'] !== callId) throw",
    replace: "if (answer.headers['x-request-id'] === '') throw",
    storeName: 'memory',
    fault: 'Auth answers Business nonsense',
  },
  {
    name: 'a store that is away is "no such token"',
    file: tokens,
    find: "await ask(store[touch ? 'touch' : 'look'](wellFormed, at, purpose))",
    replace: "await store[touch ? 'touch' : 'look'](wellFormed, at, purpose).catch(() => [])",
    storeName: 'postgres',
    fault: 'PostgreSQL is stopped (immediate)',
  },
  {
    name: '500 where a store is away',
    file: 'shared/errors.ts',
    find: "throw new AppError('unavailable', message, { cause })",
    replace: 'throw cause',
    storeName: 'redis',
    fault: 'Redis is a replica',
  },
  {
    name: 'a new password ends no session',
    file: users,
    find: 'await endTokens(id, credentialVersion, isOnly ? keep : null)',
    replace: '',
    storeName: 'postgres',
  },
  {
    name: 'the old password goes on to open',
    file: users,
    find: 'const changes = { passwordHash, confirmedAt,',
    replace: 'const changes = { confirmedAt,',
    storeName: 'memory',
  },
  {
    name: 'idle tokens live on',
    file: 'services/auth/stores/memory.ts',
    find: 'expiryOf(slot) <= now || holderOf(slot).ended',
    replace: 'holderOf(slot).ended',
    storeName: 'memory',
  },
  {
    name: 'the old secret outlives a renewal',
    file: 'services/auth/stores/memory.ts',
    find: '      table.setHash(slot, newHash)\n',
    replace: '',
    storeName: 'memory',
  },
  {
    name: 'a planned stop forgets the sessions',
    file: 'services/auth/stores/memorySnapshot.ts',
    find: "closing ??= write().catch(failWith('cannot be written'))",
    replace: 'closing ??= Promise.resolve()',
    storeName: 'memory',
    fault: 'Auth is stopped',
  },
  {
    name: "a clock that is set back takes Auth's with it",
    file: 'services/auth/clock.ts',
    find: 'Math.max(wallNow(), at + elapsedMs)',
    replace: 'wallNow()',
    storeName: 'memory',
    fault: 'the clock of Auth goes back',
  },
]

export interface Caught {
  name: string
  storeName: StoreName
  /** The rule that was found broken; null where none was. */
  rule: string | null
  violations: number
}

export async function tryMutants(seed: number, tell: (what: string) => void): Promise<Caught[]> {
  const copy = copyOfSources()
  const results: Caught[] = []
  try {
    // Where the checker refutes the server as it is, it would catch everything.
    const sound: Mutant = { name: 'nothing', file: tokens, find: 'ask', replace: 'ask', storeName: 'memory' }
    if ((await violationsOf(sound)).length > 0) throw new Error('nothing is planted yet, and the history is refuted')
    for (const [i, mutant] of mutants.entries()) {
      tell(`${i + 1}/${mutants.length} ${mutant.name}`)
      const path = join(copy, mutant.file)
      const source = readFileSync(path, 'utf8')
      const parts = source.split(mutant.find)
      if (parts.length !== 2) throw new Error(`${mutant.name}: the text is there ${parts.length - 1} times`)
      writeFileSync(path, parts.join(mutant.replace))
      const rules = await violationsOf(mutant).finally(() => writeFileSync(path, source))
      const { name, storeName } = mutant
      results.push({ name, storeName, rule: mostOf(rules), violations: rules.length })
    }
    return results
  } finally {
    rmSync(copy, { recursive: true })
  }

  async function violationsOf({ storeName, fault }: Mutant): Promise<string[]> {
    const kinds = faultKinds.filter(({ what }) => fault !== undefined && what.startsWith(fault))
    const result = await drive({
      storeName,
      root: copy,
      seed,
      random: createRandom(seed),
      kinds,
      seconds: 60,
      rounds: fault === undefined ? 0 : 1,
      calmMs: [6000, 6000],
      userCount: 10,
      fakeClock: fault?.includes('clock') ?? false,
    })
    // What the driver itself reports is not the checker's work.
    if (result.operations < 200) throw new Error(`the servers did not run: ${result.problems}`)
    return judge(result.lines, storeName, copy).violations.map(({ rule }) => rule)
  }
}

function mostOf(rules: string[]): string | null {
  const counts = new Map<string, number>()
  for (const rule of rules) counts.set(rule, (counts.get(rule) ?? 0) + 1)
  return [...counts].sort(([, a], [, b]) => b - a)[0]?.[0] ?? null
}

function copyOfSources(): string {
  const copy = mkdtempSync(join(tmpdir(), 'latchkey-prove-mutants-'))
  for (const path of ['services', 'shared', 'package.json']) cpSync(path, join(copy, path), { recursive: true })
  // Each package by itself: were the folder one link, whatever removes it would empty the real one.
  mkdirSync(join(copy, 'node_modules'))
  for (const name of readdirSync('node_modules')) {
    symlinkSync(join(process.cwd(), 'node_modules', name), join(copy, 'node_modules', name))
  }
  return copy
}
