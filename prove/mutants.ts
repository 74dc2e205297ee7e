// Servers that break a promise, each in one way, and whether the driver and the checker find it out. The sources are
// copied; the text of each must be there exactly once.
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createRandom } from '../tests/support/random.ts'
import type { Rule } from './checker.ts'
import { drive } from './drive.ts'
import { faultKinds } from './faults.ts'
import { judge } from './judgement.ts'
import { type StoreName, whyMissing } from './pair.ts'

interface Mutant {
  /** What is wrong then. */
  name: string
  file: string
  /** Found there once. */
  find: string
  replace: string
  /** That it breaks, whatever else. */
  rule: Rule
  storeName: StoreName
  /** What the fault's name begins with, where it takes one to show. */
  fault?: string
}

const tokens = 'services/auth/tokens/tokens.ts'
const credentials = 'services/auth/users/credentials.ts'
const credentialVersions = 'services/auth/users/credentialVersions.ts'
const authClient = 'packages/client/authClient.ts'

const mutants: Mutant[] = [
  {
    name: 'a log-out is answered and not done',
    rule: 'ended token',
    file: tokens,
    find: 'if (!isSession(seen)) return false\n      await endLogin(seen, () => remove(secret, ref))',
    replace: 'if (!isSession(seen)) return false',
    storeName: 'redis',
  },
  {
    name: 'DELETE /sessions/:id is answered and not done',
    rule: 'ended token',
    file: tokens,
    find: 'return session !== undefined && (await endLogin(session)) !== null',
    replace: 'return session !== undefined',
    storeName: 'memory',
  },
  {
    name: 'a verdict is cached for a second',
    rule: 'ended token',
    file: authClient,
    find: '    const batch = join(token, caller)\n',
    replace: `    const cache = ((pool as any).cache ??= new Map())
    const known = cache.get(token)
    if (known && known.until > monotonicNow()) return known.judged
    const judged = await judgeNow(token, caller)
    cache.set(token, { judged, until: monotonicNow() + 1000 })
    return judged
  }

  async function judgeNow(token: string, caller: Caller): Promise<any> {
    const batch = join(token, caller)\n`,
    storeName: 'memory',
  },
  {
    name: 'a request joins a call that has left already',
    rule: 'single use',
    file: authClient,
    find: '    const batch = join(token, caller)\n',
    replace: `    for (const { tokens, verdicts } of [...inFlight].flatMap(({ batches }) => batches)) {
      if (!tokens.includes(token)) continue
      return { verdict: (await verdicts.promise)[tokens.indexOf(token)] as Verdict, serverTiming: '' }
    }
    const batch = join(token, caller)\n`,
    storeName: 'memory',
    fault: 'Auth answers Business 300 ms late',
  },
  {
    name: 'tokens are read, then written',
    rule: 'single use',
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
    rule: 'wrong owner',
    file: 'services/auth/routes/validateToken.ts',
    find: '{ verdicts: found.map(verdictOf) }',
    replace: '{ verdicts: found.toReversed().map(verdictOf) }',
    storeName: 'sqlite',
  },
  {
    name: '401 where Auth gives no verdict',
    rule: 'lost session',
    file: 'services/business/requireToken.ts',
    find: 'await auth.judge(readBearerToken(ctx.req), ctx.state)',
    replace: `await auth
      .judge(readBearerToken(ctx.req), ctx.state)
      .catch(() => ({ verdict: { authenticated: false } as const, serverTiming: '' }))`,
    storeName: 'sqlite',
    fault: 'Auth is killed',
  },
  {
    name: 'who is answered nonsense is let in',
    rule: 'lost session',
    file: authClient,
    find: "if (answer.headers['x-request-id'] !== callId) throw",
    replace: "if (answer.headers['x-request-id'] === '') throw",
    storeName: 'memory',
    fault: 'Auth answers Business nonsense',
  },
  {
    name: 'a store that is away is "no such token"',
    rule: 'lost session',
    file: tokens,
    find: "await ask(store[touch ? 'touch' : 'look'](wellFormed, at, purpose))",
    replace: "await store[touch ? 'touch' : 'look'](wellFormed, at, purpose).catch(() => [])",
    storeName: 'postgres',
    fault: 'PostgreSQL is stopped (immediate)',
  },
  {
    name: '500 where a store is away',
    rule: 'status',
    file: 'shared/http/errors.ts',
    find: "throw new AppError('unavailable', message, { cause })",
    replace: 'throw cause',
    storeName: 'redis',
    fault: 'Redis is a replica',
  },
  {
    name: 'a new password ends no session',
    rule: 'ended token',
    file: credentialVersions,
    find: 'await endTokens(id, credentialVersion, isOnly ? keep : null)',
    replace: '',
    storeName: 'postgres',
  },
  {
    name: 'the old password goes on to open',
    rule: 'old password',
    file: credentials,
    find: 'raise(user, { passwordHash, confirmedAt })',
    replace: 'raise(user, { confirmedAt })',
    storeName: 'memory',
  },
  {
    name: 'idle tokens live on',
    rule: 'dead token',
    file: 'services/auth/stores/memory/tokenStore.ts',
    find: 'expiryOf(slot) <= now || holderOf(slot).ended',
    replace: 'holderOf(slot).ended',
    storeName: 'memory',
  },
  {
    name: 'a busy token outlives its absolute end',
    rule: 'dead token',
    file: 'services/auth/stores/memory/tokenStore.ts',
    find: 'Math.min(now + ttlMs, absoluteExpiresAt[i] as number)',
    replace: 'now + ttlMs',
    storeName: 'memory',
  },
  {
    name: 'the id of a token is enough',
    rule: 'never issued',
    file: 'services/auth/stores/memory/tokenStore.ts',
    find: 'slot !== none && table.hasHash(slot, hash) ? slot : none',
    replace: 'slot',
    storeName: 'memory',
  },
  {
    name: 'a token opens what it is not for',
    rule: 'wrong purpose',
    file: 'services/auth/stores/memory/tokenStore.ts',
    find: ' && holderOf(slot).purpose === purpose ? slot',
    replace: ' ? slot',
    storeName: 'memory',
  },
  {
    name: 'a log-out with a secret that was renewed away ends nothing',
    rule: 'ended token',
    file: tokens,
    find: "if (reason === 'renewed') await endUnseen(remove(secret, ref))",
    replace: "if (reason === 'renewed') await ask(store.look([], now(), null))",
    storeName: 'memory',
  },
  {
    name: 'the old secret outlives a renewal',
    rule: 'ended token',
    file: 'services/auth/stores/memory/tokenStore.ts',
    find: '      table.setHash(slot, newHash)\n',
    replace: '',
    storeName: 'memory',
  },
  {
    name: 'a planned stop forgets the sessions',
    rule: 'lost session',
    file: 'services/auth/stores/memory/snapshot.ts',
    find: "closing ??= write().catch(failWith('cannot be written'))",
    replace: 'closing ??= Promise.resolve()',
    storeName: 'memory',
    fault: 'Auth is stopped',
  },
  {
    name: "a clock that is set back takes Auth's with it",
    rule: 'dead token',
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
  /** That it breaks. */
  rule: Rule
  /** Of that rule; none: it was not caught. */
  violations: number
}

/** In words, what of the sources has changed so that a mutant cannot be planted any more. */
export function mutantsAstray(): string[] {
  return mutants.flatMap(({ name, file, find }) => {
    const times = readFileSync(file, 'utf8').split(find).length - 1
    return times === 1 ? [] : [`${name}: its text is ${times} times in ${file}`]
  })
}

/** Only those whose stores are here. */
export async function tryMutants(seed: number, tell: (what: string) => void): Promise<Caught[]> {
  const copy = copyOfSources()
  const results: Caught[] = []
  try {
    // Where the checker refutes the server as it is, it would catch everything.
    if ((await violationsOf({ storeName: 'memory' })).length > 0) {
      throw new Error('nothing is planted yet, and the history is refuted')
    }
    const here = mutants.filter(({ storeName }) => whyMissing(storeName) === null)
    for (const [i, mutant] of here.entries()) {
      const { name, file, find, replace, rule, storeName } = mutant
      tell(`${i + 1}/${here.length} ${name}`)
      const path = join(copy, file)
      const source = readFileSync(path, 'utf8')
      writeFileSync(
        path,
        source.replace(find, () => replace),
      )
      const rules = await violationsOf(mutant).finally(() => writeFileSync(path, source))
      results.push({ name, storeName, rule, violations: rules.filter(broken => broken === rule).length })
    }
    return results
  } finally {
    rmSync(copy, { recursive: true })
  }

  async function violationsOf({ storeName, fault }: Pick<Mutant, 'storeName' | 'fault'>): Promise<Rule[]> {
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
