// Defects that can be planted in the services, each of which breaks one promise: the checker must find every one. A defect
// overrides methods of a port, so it survives any change behind that port; the type checker reports a change of the port.
import type { AuthClient, Validation } from '../packages/client/authClient.ts'
import { isAdmitted, onlyOne, type Rate, type TokenRecord, type TokenStore } from '../services/auth/stores/tokenPort.ts'
import type { UserStore } from '../services/auth/stores/userPort.ts'
import type { Rule } from './checker.ts'
import type { StoreName } from './pair.ts'

/** Some methods of a port, overridden; `real` is the port without the defect. */
type Override<Port> = (real: Port) => Partial<Port>

export interface Defect {
  name: string
  /** The rule that the defect breaks. It may break other rules too. */
  rule: Rule
  /** The store on which the defect is tried. */
  storeName: StoreName
  /** The beginning of the name of the fault under which the defect shows; absent if it shows without a fault. */
  fault?: string
  tokenStore?: Override<TokenStore>
  userStore?: Override<UserStore>
  authClient?: Override<AuthClient>
}

const dayMs = 86_400_000

export const defects: Defect[] = [
  {
    name: 'a log-out is answered but not carried out',
    rule: 'ended token',
    storeName: 'redis',
    tokenStore: real => ({ delete: async (ref, now) => onlyOne(await real.look([ref], now, null)) }),
  },
  {
    name: 'DELETE /sessions/:id is answered but not carried out',
    rule: 'ended token',
    storeName: 'memory',
    tokenStore(real) {
      const inserted = recordInserts(real)
      return { insert: inserted.insert, deleteById: async id => inserted.tokens.get(id) ?? null }
    },
  },
  {
    name: 'a verdict is cached for a second',
    rule: 'ended token',
    storeName: 'memory',
    authClient(real) {
      const cache = new Map<string, { validation: Validation; until: number }>()
      return {
        async validate(token, caller) {
          const cached = cache.get(token)
          if (cached !== undefined && cached.until > performance.now()) return cached.validation
          const validation = await real.validate(token, caller)
          cache.set(token, { validation, until: performance.now() + 1000 })
          return validation
        },
      }
    },
  },
  {
    name: 'a request joins a call that was sent before the request arrived',
    rule: 'single use',
    storeName: 'memory',
    fault: 'Auth answers Business 300 ms late',
    authClient(real) {
      const inFlight = new Map<string, Promise<Validation>>()
      return {
        validate(token, caller) {
          const validation = inFlight.get(token) ?? real.validate(token, caller).finally(() => inFlight.delete(token))
          inFlight.set(token, validation)
          return validation
        },
      }
    },
  },
  {
    name: 'tokens are read and written in two steps',
    rule: 'single use',
    storeName: 'redis',
    tokenStore: real => ({
      async touch(refs, now, purpose) {
        const seen = await real.look(refs, now, purpose)
        await real.touch(refs, now, purpose)
        return seen
      },
    }),
  },
  {
    name: 'the answers of a batch are swapped',
    rule: 'wrong owner',
    storeName: 'sqlite',
    tokenStore: real => ({
      touch: async (refs, now, purpose) => (await real.touch(refs, now, purpose)).toReversed(),
    }),
  },
  {
    name: 'Business answers 401 if Auth gives no verdict',
    rule: 'lost session',
    storeName: 'sqlite',
    fault: 'Auth is killed',
    authClient: real => ({
      validate: (token, caller) =>
        real.validate(token, caller).catch(() => ({ verdict: { authenticated: false }, serverTiming: '' })),
    }),
  },
  {
    name: 'Business uses the answer to another request',
    rule: 'wrong owner',
    storeName: 'memory',
    fault: 'Auth sends Business malformed',
    authClient(real) {
      let last: Validation | null = null
      return {
        async validate(token, caller) {
          try {
            last = await real.validate(token, caller)
          } catch (error) {
            if (last === null) throw error
          }
          return last
        },
      }
    },
  },
  {
    name: 'a token counts as unknown if the store fails',
    rule: 'lost session',
    storeName: 'postgres',
    fault: 'PostgreSQL is stopped (immediate)',
    tokenStore: real => ({
      look: (refs, now, purpose) => real.look(refs, now, purpose).catch(() => refs.map(() => null)),
      touch: (refs, now, purpose) => real.touch(refs, now, purpose).catch(() => refs.map(() => null)),
    }),
  },
  {
    name: 'Auth answers 500 if the store fails',
    rule: 'status',
    storeName: 'redis',
    fault: 'Redis is a replica',
    // The code that reads this answer throws a TypeError.
    tokenStore: real => ({
      touch: (refs, now, purpose) => real.touch(refs, now, purpose).catch(() => undefined as never),
    }),
  },
  {
    name: 'a new password ends no session',
    rule: 'ended token',
    storeName: 'postgres',
    tokenStore: () => ({ raiseFloor: async () => {} }),
  },
  {
    name: 'a new password is not stored',
    rule: 'right password',
    storeName: 'memory',
    userStore: real => ({
      update: (id, ifVersion, { passwordHash: _, ...changes }) => real.update(id, ifVersion, changes),
    }),
  },
  {
    name: 'idle tokens stay live',
    rule: 'dead token',
    storeName: 'memory',
    tokenStore: real => ({
      insert: (ref, token, limits, now) =>
        real.insert(ref, { ...token, expiresAt: token.absoluteExpiresAt, ttlMs: dayMs }, limits, now),
    }),
  },
  {
    name: 'a busy token outlives its absolute end',
    rule: 'dead token',
    storeName: 'memory',
    tokenStore: real => ({
      insert: (ref, token, limits, now) =>
        real.insert(ref, { ...token, absoluteExpiresAt: token.absoluteExpiresAt + dayMs }, limits, now),
    }),
  },
  {
    name: 'the id of a token is accepted as its secret',
    rule: 'never issued',
    storeName: 'memory',
    tokenStore(real) {
      const hash = 'A'.repeat(43)
      return {
        insert: (ref, token, limits, now) => real.insert({ ...ref, hash }, token, limits, now),
        look: (refs, now, purpose) =>
          real.look(
            refs.map(ref => ({ ...ref, hash })),
            now,
            purpose,
          ),
        touch: (refs, now, purpose) =>
          real.touch(
            refs.map(ref => ({ ...ref, hash })),
            now,
            purpose,
          ),
      }
    },
  },
  {
    name: 'a token is accepted for any purpose',
    rule: 'wrong purpose',
    storeName: 'memory',
    tokenStore: real => ({
      insert: (ref, token, limits, now) => real.insert(ref, { ...token, purpose: null }, limits, now),
      look: (refs, now) => real.look(refs, now, null),
      touch: (refs, now) => real.touch(refs, now, null),
    }),
  },
  {
    name: 'a log-out with an earlier secret of a session ends nothing',
    rule: 'ended token',
    storeName: 'memory',
    tokenStore: () => ({ findRenewed: async () => null }),
  },
  {
    name: 'the old secret outlives a renewal',
    rule: 'ended token',
    storeName: 'memory',
    tokenStore(real) {
      const successors = new Map<string, string>()
      const current = (ref: { id: string; hash: string }) => {
        let { hash } = ref
        for (let next = successors.get(hash); next !== undefined; next = successors.get(hash)) hash = next
        return { ...ref, hash }
      }
      return {
        async renew(ref, newHash, ...rest) {
          const renewed = await real.renew(ref, newHash, ...rest)
          if (renewed !== null) successors.set(ref.hash, newHash)
          return renewed
        },
        look: (refs, now, purpose) => real.look(refs.map(current), now, purpose),
        touch: (refs, now, purpose) => real.touch(refs.map(current), now, purpose),
      }
    },
  },
  {
    name: 'a planned stop loses the sessions',
    rule: 'lost session',
    storeName: 'memory',
    fault: 'Auth is stopped',
    tokenStore: () => ({ close: async () => {} }),
  },
  {
    name: 'Business remembers the roles of a verdict for two seconds',
    rule: 'stale authority',
    storeName: 'memory',
    authClient(real) {
      const cache = new Map<string, { roles: readonly string[]; until: number }>()
      return {
        async validate(token, caller) {
          const { verdict, serverTiming } = await real.validate(token, caller)
          if (!verdict.authenticated) return { verdict, serverTiming }
          const cached = cache.get(token)
          if (cached !== undefined && cached.until > performance.now()) {
            return { verdict: { ...verdict, roles: [...cached.roles] }, serverTiming }
          }
          cache.set(token, { roles: verdict.roles, until: performance.now() + 2000 })
          return { verdict, serverTiming }
        },
      }
    },
  },
  {
    name: 'a change of roles is answered before the token store has it',
    rule: 'stale authority',
    storeName: 'sqlite',
    tokenStore: () => ({ setAuthority: async () => {} }),
  },
  {
    name: 'the pause of a token is answered but not carried out',
    rule: 'stale authority',
    storeName: 'redis',
    tokenStore: real => ({ change: (id, { scope }, now) => real.change(id, { scope }, now) }),
  },
  {
    name: 'a resumed user stays paused',
    rule: 'stale pause',
    storeName: 'memory',
    tokenStore(real) {
      const paused = new Set<string>()
      return {
        setAuthority(userId, authority) {
          if (authority.paused) paused.add(userId)
          return real.setAuthority(userId, { ...authority, paused: paused.has(userId) })
        },
      }
    },
  },
  {
    name: 'a token can be used more often than its number of uses',
    rule: 'limit exceeded',
    storeName: 'memory',
    tokenStore: real => ({
      insert: (ref, token, limits, now) => real.insert(ref, { ...token, usesLeft: null }, limits, now),
    }),
  },
  {
    name: 'a delegated token outlives its parent',
    rule: 'outlived parent',
    storeName: 'memory',
    tokenStore: real => ({
      insert: (ref, token, limits, now) => real.insert(ref, { ...token, parent: null }, limits, now),
    }),
  },
  {
    name: 'each process counts a rate for itself, and begins anew when it is killed',
    rule: 'limit exceeded',
    storeName: 'sqlite',
    fault: 'Auth is killed',
    tokenStore(real) {
      const counted = new Set<string>()
      return {
        async touch(refs, now, purpose) {
          const others = refs.filter(({ id }) => !counted.has(id))
          for (const { id } of others) counted.add(id)
          for (const token of await real.look(others, now, purpose)) {
            if (token === null || !isAdmitted(token) || token.rate === null) continue
            // A rate that changes begins with a full bucket.
            await real.change(token.id, { rate: null }, now)
            await real.change(token.id, { rate: token.rate }, now)
          }
          return real.touch(refs, now, purpose)
        },
      }
    },
  },
  {
    name: 'the rate of a user is answered but does not apply',
    rule: 'limit exceeded',
    storeName: 'redis',
    tokenStore: real => ({
      insert: (ref, { authority, ...token }, limits, now) =>
        real.insert(ref, { ...token, authority: { ...authority, rate: null } }, limits, now),
      setAuthority: (userId, authority) => real.setAuthority(userId, { ...authority, rate: null }),
    }),
  },
  {
    name: 'a user whose rate was taken away stays limited',
    rule: 'limited without cause',
    storeName: 'memory',
    tokenStore(real) {
      const rates = new Map<string, Rate>()
      return {
        setAuthority(userId, authority) {
          if (authority.rate) rates.set(userId, authority.rate)
          return real.setAuthority(userId, { ...authority, rate: rates.get(userId) ?? null })
        },
      }
    },
  },
  {
    name: 'Auth follows a clock that is set back',
    rule: 'dead token',
    storeName: 'memory',
    fault: "Auth's clock goes back",
    tokenStore: real => ({
      look: (refs, _now, purpose) => real.look(refs, Date.now(), purpose),
      touch: (refs, _now, purpose) => real.touch(refs, Date.now(), purpose),
      deleteExpired: (_now, limit) => real.deleteExpired(Date.now(), limit),
    }),
  },
]

const variable = 'PLANTED_DEFECT'

/** How to start a service with the defect: arguments for Node and an environment variable. */
export function plant({ name }: Defect): { execArgv: string[]; env: Record<string, string> } {
  return { execArgv: ['--import', new URL('seams/preload.ts', import.meta.url).href], env: { [variable]: name } }
}

/** The defect that this process was started with. */
export function plantedDefect(): Defect {
  const defect = defects.find(({ name }) => name === process.env[variable])
  if (defect === undefined) throw new Error(`${variable}: unknown defect ${process.env[variable]}`)
  return defect
}

export function withDefect<Port extends object>(real: Port, override: Override<Port> = () => ({})): Port {
  return { ...real, ...override(real) }
}

/** An `insert` that remembers each token, so that a method can return a token without deleting it. */
function recordInserts(real: TokenStore): { tokens: Map<string, TokenRecord>; insert: TokenStore['insert'] } {
  const tokens = new Map<string, TokenRecord>()
  return {
    tokens,
    async insert(ref, token, limits, now) {
      tokens.set(token.id, token)
      return real.insert(ref, token, limits, now)
    },
  }
}
