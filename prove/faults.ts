// The faults of the fault model: how each begins, how it ends, and what Latchkey promises under it. Hides the signals, commands
// and bytes that cause them.
import { closeSync, openSync, readdirSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { Line } from '../tests/support/line.ts'
import type { Cluster } from '../tests/support/postgres.ts'
import type { Random } from '../tests/support/random.ts'
import type { RedisServer } from '../tests/support/redis.ts'
import { faketime, type Pair, type StoreName, storeNames } from './pair.ts'

export interface FaultKind {
  /** The id in the fault model. */
  id: string
  what: string
  /** What clients may expect during the fault. */
  promise: string
  stores: readonly StoreName[]
  begin(pair: Pair, random: Random): Promise<void> | void
  end(pair: Pair): Promise<void> | void
  /** The minimum and maximum duration; 0 if the fault is over at once. */
  lastsMs: readonly [number, number]
  losesTokens?: (storeName: StoreName) => boolean
  /** Services whose connections may break. */
  disconnects?: string[]
  /** Listeners that refuse connections during the fault. */
  refuses?: string[]
  clockShiftMs?: number
  /** No `/data` is 503 later than this after the fault began. Infinite if absent. */
  maxUnavailableMs?: number
  /** How long after the recovery work that the fault delayed may still take effect; by default `settlingMs` of the driver. */
  settlesInMs?: number
  /** Returns why the fault cannot be injected on this machine, or null if it can be. */
  whyNot?: (pair: Pair) => string | null
}

const minute = 60_000
const hour = 60 * minute
const unavailable =
  '503 within the deadline if there is no verdict; each verdict is correct; Latchkey recovers by itself'

const redisOf = ({ redis }: Pair) => redis as RedisServer
const postgresOf = ({ postgres }: Pair) => postgres as Cluster
const storeLineOf = ({ storeLine }: Pair) => storeLine as Line

/** Invalid responses; `last` is the response to another request. */
const nonsense: ((answer: Buffer, last: Buffer) => Buffer)[] = [
  () => Buffer.from('\x16\x03\x01 garbage \xff\xfe'),
  () => response('200 OK', '{"verdicts":[{"authenticated":true}]}'),
  () => response('200 OK', '{"authenticated":true,"username":"client-0@example.com"}'),
  () => response('401 Unauthorized', '{"error":"invalid_token"}'),
  () => response('302 Found', '', 'Location: /\r\n'),
  () => response('204 No Content', ''),
  () => response('500 Internal Server Error', '<html>'),
  answer => answer.subarray(0, answer.length / 2),
  (_answer, last) => last,
]

function response(status: string, body: string, headers = ''): Buffer {
  const length = `Content-Length: ${Buffer.byteLength(body)}\r\n`
  return Buffer.from(`HTTP/1.1 ${status}\r\nContent-Type: application/json\r\n${headers}${length}\r\n${body}`)
}

function heal(line: Line): void {
  line.state = 'open'
  line.delayMs = 0
  line.alter = answer => answer
}

const cuts = new Map<Line, NodeJS.Timeout>()

/** The faults of a connection, the same for both: from Business to Auth, and from Auth to its store. */
function faultsOfLine(
  id: string,
  name: string,
  lineOf: (pair: Pair) => Line,
  stores: readonly StoreName[],
): FaultKind[] {
  const common = { id, stores, promise: unavailable, lastsMs: [1500, 3000] } as const
  const end = (pair: Pair) => heal(lineOf(pair))
  return [
    {
      ...common,
      what: `${name}: connections are reset again and again`,
      begin(pair) {
        const line = lineOf(pair)
        cuts.set(line, setInterval(line.cut, 60))
      },
      end: pair => clearInterval(cuts.get(lineOf(pair))),
    },
    {
      ...common,
      what: `${name}: bytes vanish, connections stay open`,
      begin(pair) {
        lineOf(pair).state = 'silent'
      },
      end,
    },
    {
      ...common,
      what: `${name}: answers drip, a byte at a time`,
      begin(pair) {
        lineOf(pair).state = 'slow'
      },
      end,
    },
  ]
}

const withServer = ['postgres', 'redis'] as const
const withSqlite = ['memory', 'sqlite', 'redis'] as const

export const faultKinds: FaultKind[] = [
  {
    id: 'F1',
    what: 'Auth is killed (SIGKILL) and started again',
    promise: '/data is 503 at once; earlier answers still hold; memory: every user logs in again',
    stores: storeNames,
    lastsMs: [500, 2500],
    begin: ({ auth }) => auth.kill(),
    end: ({ auth }) => auth.start(),
    losesTokens: storeName => storeName === 'memory',
    disconnects: ['auth'],
    refuses: ['auth', 'authInternal'],
  },
  {
    id: 'F2',
    what: 'Auth hangs (SIGSTOP)',
    promise: unavailable,
    stores: storeNames,
    lastsMs: [1500, 4000],
    begin: ({ auth }) => auth.hang(),
    end: ({ auth }) => auth.resume(),
  },
  {
    id: 'F3',
    what: 'Auth sends Business malformed, truncated and mixed-up answers',
    promise: unavailable,
    stores: storeNames,
    lastsMs: [1500, 3000],
    begin({ authLine }, random) {
      let last: Buffer = response('200 OK', '{}')
      authLine.alter = answer => {
        const altered = random.pick(nonsense)(answer, last)
        last = answer
        return altered
      }
    },
    end: ({ authLine }) => heal(authLine),
  },
  {
    id: 'F4',
    what: 'Auth answers Business 300 ms late',
    promise: 'slower, but the same answers',
    stores: storeNames,
    lastsMs: [2000, 3000],
    begin({ authLine }) {
      authLine.delayMs = 300
    },
    end: ({ authLine }) => heal(authLine),
  },
  ...faultsOfLine('F5', 'Business to Auth', ({ authLine }) => authLine, storeNames),
  ...faultsOfLine('F5', 'Auth to its store', storeLineOf, withServer),
  {
    id: 'F5',
    what: 'Auth to its store: answers come 200 ms late',
    promise: 'slower, but no wrong answer',
    stores: withServer,
    lastsMs: [2000, 3000],
    begin(pair) {
      storeLineOf(pair).delayMs = 200
    },
    end: pair => heal(storeLineOf(pair)),
  },
  {
    id: 'F6',
    what: 'Redis is killed (SIGKILL) and started again with its append-only file',
    promise: '503 meanwhile; no session and no acknowledged revocation is lost',
    stores: ['redis'],
    lastsMs: [500, 2500],
    begin: pair => redisOf(pair).kill(),
    end: pair => redisOf(pair).start(),
  },
  {
    id: 'F6',
    what: 'Redis is killed and comes back empty',
    promise: '503 meanwhile; then every user logs in again; nothing that was revoked comes back',
    stores: ['redis'],
    lastsMs: [500, 1500],
    async begin(pair) {
      const { folder } = redisOf(pair)
      await redisOf(pair).kill()
      for (const name of readdirSync(folder)) if (name !== 'log') rmSync(join(folder, name), { recursive: true })
    },
    end: pair => redisOf(pair).start(),
    losesTokens: () => true,
  },
  {
    id: 'F7',
    what: 'Redis hangs (SIGSTOP)',
    promise: unavailable,
    stores: ['redis'],
    lastsMs: [1500, 4000],
    begin: pair => redisOf(pair).hang(),
    end: pair => redisOf(pair).resume(),
  },
  {
    id: 'F8',
    what: 'Redis is full (maxmemory, noeviction)',
    promise: 'existing sessions work and can be ended; new log-ins are 503',
    stores: ['redis'],
    lastsMs: [2000, 3000],
    begin: async pair => void (await redisOf(pair).command('config', 'set', 'maxmemory', 1)),
    end: async pair => void (await redisOf(pair).command('config', 'set', 'maxmemory', 0)),
  },
  {
    id: 'F9',
    what: 'Redis is a replica without a master (READONLY)',
    promise: '503: a replica may have missed a revocation',
    stores: ['redis'],
    lastsMs: [1500, 3000],
    begin: async pair => void (await redisOf(pair).command('replicaof', '127.0.0.1', 1)),
    end: async pair => void (await redisOf(pair).command('replicaof', 'no', 'one')),
  },
  ...(['fast', 'immediate'] as const).map(
    (mode): FaultKind => ({
      id: 'F10',
      what: `PostgreSQL is stopped (${mode}) and started again`,
      promise: '503 meanwhile; nothing that was acknowledged is lost',
      stores: ['postgres'],
      lastsMs: [500, 2500],
      begin: pair => postgresOf(pair).stop(mode),
      end: pair => postgresOf(pair).start(),
    }),
  ),
  {
    id: 'F10',
    what: 'PostgreSQL hangs (SIGSTOP)',
    promise: unavailable,
    stores: ['postgres'],
    lastsMs: [1500, 4000],
    begin: pair => postgresOf(pair).hang(),
    end: pair => postgresOf(pair).resume(),
  },
  {
    id: 'F10',
    what: 'PostgreSQL is read-only (default_transaction_read_only)',
    promise: '503 for everything that writes; Latchkey recovers by itself',
    stores: ['postgres'],
    lastsMs: [1500, 3000],
    begin: pair => makeReadOnly(postgresOf(pair), 'on'),
    end: pair => makeReadOnly(postgresOf(pair), 'off'),
  },
  {
    id: 'F10',
    what: 'PostgreSQL ends the connections of Auth (57P01)',
    promise: '503 only for requests in flight',
    stores: ['postgres'],
    lastsMs: [0, 0],
    async begin(pair) {
      await postgresOf(pair).query(`select pg_terminate_backend(pid) from pg_stat_activity
        where pid <> pg_backend_pid() and backend_type = 'client backend'`)
    },
    end() {},
  },
  clockFault("Auth's clock jumps an hour ahead", 'at worst sessions end early', hour),
  clockFault("Auth's clock goes back two hours", 'no expired token comes back, and no token lives longer', -2 * hour),
  clockError("Auth's clock is an hour ahead for a while", hour),
  clockError("Auth's clock is a minute behind for a while", -minute),
  {
    id: 'F14',
    what: 'Auth is stopped (SIGTERM) and started again under load',
    promise: 'every accepted request is answered, /data is 503 meanwhile; memory: sessions are kept',
    stores: storeNames,
    lastsMs: [0, 1000],
    begin: async ({ auth }) => requireZero(await auth.stop()),
    end: ({ auth }) => auth.start(),
    refuses: ['auth', 'authInternal'],
  },
  {
    id: 'F14',
    what: 'Business is stopped (SIGTERM) and started again under load',
    promise: 'every accepted request is answered; Auth is not affected',
    stores: storeNames,
    lastsMs: [0, 1000],
    begin: async ({ business }) => requireZero(await business.stop()),
    end: ({ business }) => business.start(),
    refuses: ['business'],
  },
  {
    id: 'F18',
    what: 'The disk of the SQLite file is full',
    promise: 'requests that write are 503, all others work; once there is room Latchkey recovers without a restart',
    stores: withSqlite,
    lastsMs: [1500, 3000],
    begin: ({ disk }) => fill(join(disk.folder, 'ballast')),
    end: ({ disk }) => rmSync(join(disk.folder, 'ballast')),
    whyNot: ({ disk }) => (disk.isOwn ? null : 'only root can mount a small disk'),
  },
  {
    id: 'F21',
    what: 'Business is killed (SIGKILL) and started again',
    promise: 'Auth is not affected; no verdict is mixed up',
    stores: storeNames,
    lastsMs: [200, 1500],
    begin: ({ business }) => business.kill(),
    end: ({ business }) => business.start(),
    disconnects: ['business'],
    refuses: ['business'],
  },
]

function clockFault(what: string, promise: string, shiftMs: number): FaultKind {
  return {
    id: 'F11',
    what,
    promise,
    stores: ['memory', 'sqlite'],
    lastsMs: [0, 0],
    begin: ({ shiftClock }) => shiftClock?.(shiftMs),
    end() {},
    // Auth never lets its clock go back, so clients see no such shift.
    clockShiftMs: Math.max(0, shiftMs),
    whyNot: whyNoClock,
  }
}

/** On stores with a clock of their own, which Auth compares with its own. */
function clockError(what: string, skewMs: number): FaultKind {
  return {
    id: 'F11',
    what,
    promise: '503 while the clocks of Auth and of the store differ; no live token ends, and no dead one comes back',
    stores: ['postgres', 'redis'],
    lastsMs: [200, 3000],
    begin: ({ skewClock }) => void skewClock?.(skewMs),
    end: ({ skewClock }) => void skewClock?.(0),
    whyNot: whyNoClock,
  }
}

function whyNoClock({ shiftClock }: Pair): string | null {
  if (faketime === undefined) return 'libfaketime is not installed'
  return shiftClock === null ? 'the clock of this run is the real one' : null
}

function requireZero(code: number | null): void {
  if (code !== 0) throw new Error(`it ended with ${code} on SIGTERM`)
}

async function makeReadOnly(postgres: Cluster, state: 'on' | 'off'): Promise<void> {
  await postgres.query(`alter system set default_transaction_read_only = ${state}`)
  await postgres.query('select pg_reload_conf()')
}

function fill(file: string): void {
  const descriptor = openSync(file, 'w')
  try {
    for (;;) writeSync(descriptor, Buffer.alloc(4096))
  } catch {
    // ENOSPC: the disk is full
  } finally {
    closeSync(descriptor)
  }
}
