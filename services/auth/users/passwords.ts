// Hashes and verifies passwords in worker threads behind a fair, bounded queue. Hides the scheme and its traps.
import { createHmac } from 'node:crypto'
import { Worker } from 'node:worker_threads'
import { networkOf } from '../../../shared/http/address.ts'
import { AppError } from '../../../shared/http/errors.ts'
import { createFairQueue, type Party } from './fairQueue.ts'
import type { HashResult, HashTask } from './hashWorker.ts'

export interface PasswordsOptions {
  /** bcrypt's cost, 10 or more (OWASP Password Storage): each step doubles the time of a hash. */
  cost: number
  /** Threads that hash, beside the one that validates. */
  workers: number
  /** How many may wait for a worker. For one more, the newest job of the largest party is refused at once. */
  maxQueue: number
  /** How many jobs of one account may wait or run. */
  maxPerAccount: number
}

/** The client that waits for work on passwords: its network takes turns with the others. */
export interface Client {
  address: string
  /** Aborts when the client goes away. */
  signal?: AbortSignal
}

/** A client and the account whose password it is, normalised; there need not be such an account. */
export interface HashOwner extends Client {
  account: string
}

/** What no client waits for: commands, and the demo user. */
export const localClient: Client = { address: 'local' }

export interface Passwords {
  /** To be stored. Rejects with `unavailable` if the queue refuses it, or the client goes away while it waits. */
  hash(password: string, owner: HashOwner): Promise<string>
  /**
   * Whether `stored` was made from this password. Costs as much as one hash whatever `stored` is: null (there is no such
   * user), a hash of a lower cost, or no hash at all. A hash of a higher cost takes longer. Rejects as `hash` does.
   */
  verify(password: string, stored: string | null, owner: HashOwner): Promise<boolean>
  /** Whether a new hash of the same password would be stronger: another scheme, or a smaller cost than is set now. */
  isOutdated(stored: string): boolean
  /** How many wait for a worker. */
  queued(): number
  /** The work that was done so far, in hashes of the cost that is set. */
  hashes(): number
  close(): Promise<void>
}

interface Job extends Party {
  task: HashTask
  resolve(value: HashResult['value']): void
  reject(error: Error): void
}

const scheme = 'hmac-sha256+bcrypt:' // tells our hashes from bare bcrypt ones
const bcryptFormat = /^\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}$/
const lowestCost = 4 // bcrypt's own; below it throws
const highestCost = 16 // a row that says 31 would keep a worker busy for years
const bcryptBytes = 72 // of a password: what comes behind them bcrypt does not look at

/** Resolves once a worker has made the hash that unknown users are compared with. */
export async function openPasswords({ cost, workers, maxQueue, maxPerAccount }: PasswordsOptions): Promise<Passwords> {
  const idle: Worker[] = []
  const all = new Set<Worker>()
  const queue = createFairQueue<Job>({ maxWaiting: maxQueue, maxPerAccount })
  const current = new Map<Worker, Job>()
  let work = 0
  let closed = false

  function startWorker(): void {
    const worker = new Worker(new URL('./hashWorker.ts', import.meta.url))
    all.add(worker)
    worker.on('message', (result: HashResult) => {
      work += result.work
      finish(worker)?.resolve(result.value)
      idle.push(worker)
      assign()
    })
    worker.on('error', cause => finish(worker)?.reject(new AppError('internal', 'Hashing failed.', { cause })))
    worker.on('exit', () => {
      all.delete(worker)
      finish(worker)?.reject(new AppError('unavailable', 'Hashing was interrupted.'))
      if (idle.includes(worker)) idle.splice(idle.indexOf(worker), 1)
      if (!closed) startWorker()
    })
    idle.push(worker)
    assign()
  }

  /** The job that the worker had. */
  function finish(worker: Worker): Job | undefined {
    const job = current.get(worker)
    current.delete(worker)
    if (job) queue.done(job)
    return job
  }

  function assign(): void {
    while (idle.length > 0) {
      const job = queue.next()
      if (job === null) return
      const worker = idle.pop() as Worker
      current.set(worker, job)
      worker.postMessage(job.task)
    }
  }

  function run(task: HashTask, { address, account, signal }: HashOwner): Promise<HashResult['value']> {
    if (closed) return Promise.reject(new AppError('unavailable', 'The service is closing.'))
    if (signal?.aborted) return Promise.reject(gone())
    return new Promise((resolve, reject) => {
      const job: Job = { task, network: networkOf(address), account, resolve, reject }
      queue.add(job)?.reject(tooMany())
      // Only a job that waits is taken out: a hash that has begun is not worth a worker's restart.
      signal?.addEventListener('abort', () => queue.remove(job) && reject(gone()))
      assign()
    })
  }

  async function hash(password: string, owner: HashOwner): Promise<string> {
    return scheme + (await run({ digest: digestOf(password), cost }, owner))
  }

  for (let i = 0; i < workers; i++) startWorker()
  const decoy = parseStored(await hash('', { ...localClient, account: '' })) as StoredHash

  return {
    hash,
    async verify(password, stored, owner) {
      const known = stored === null ? null : parseStored(stored)
      const bare = known?.isBare === true
      const task = { digest: bare ? password : digestOf(password), cost, hash: (known ?? decoy).bcryptHash }
      const matches = await run(task, owner)
      return matches === true && known !== null && !(bare && isAmbiguous(password))
    },
    isOutdated(stored) {
      const known = parseStored(stored)
      return known !== null && (known.isBare || known.cost < cost)
    },
    queued: queue.waiting,
    hashes: () => work / 2 ** cost,
    async close() {
      closed = true
      for (let job = queue.next(); job !== null; job = queue.next()) {
        job.reject(new AppError('unavailable', 'The service is closing.'))
      }
      await Promise.all([...all].map(worker => worker.terminate()))
    },
  }
}

/**
 * What bcrypt gets in place of the password: 44 characters without NUL, whatever the password is. bcrypt itself looks at
 * 72 bytes only and repeats its key after a NUL, so that different passwords would be equal. NFKC first: the same
 * password typed on another keyboard is the same (NIST SP 800-63B-4 section 3.1.1.2). The HMAC key is no secret; it
 * makes the digest useless against plain SHA-256 sums leaked elsewhere.
 */
function digestOf(password: string): string {
  return createHmac('sha256', 'latchkey password').update(password.normalize('NFKC')).digest('base64')
}

function tooMany(): AppError {
  const headers = { 'Retry-After': '2' }
  return new AppError('unavailable', 'Too many log-ins wait already; try again.', { headers })
}

function gone(): AppError {
  return new AppError('unavailable', 'The client went away.')
}

interface StoredHash {
  bcryptHash: string
  cost: number
  /** bcrypt of the password itself, as other services made it. */
  isBare: boolean
}

function parseStored(stored: string): StoredHash | null {
  const isBare = !stored.startsWith(scheme)
  const bcryptHash = isBare ? stored : stored.slice(scheme.length)
  const cost = Number(bcryptFormat.exec(bcryptHash)?.[1])
  return cost >= lowestCost && cost <= highestCost ? { bcryptHash, cost, isBare } : null
}

/** Whether an account can be imported with this hash: bcrypt, of a cost that can be verified in reasonable time. */
export function isBcryptHash(text: string): boolean {
  return parseStored(text)?.isBare === true
}

/** Whether bcrypt alone would take another password for this one. */
function isAmbiguous(password: string): boolean {
  return password.includes('\0') || Buffer.byteLength(password) > bcryptBytes
}
