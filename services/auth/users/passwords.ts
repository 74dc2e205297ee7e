// Hashes and verifies passwords in threads behind a fair, bounded queue. Hides the scheme and its traps.
import { createHmac } from 'node:crypto'
import { networkOf } from '../../../shared/http/address.ts'
import { AppError } from '../../../shared/http/errors.ts'
import { createFairQueue, type Party } from './fairQueue.ts'
import type { HashResult, HashTask } from './hashThread.ts'
import type { HashThreads } from './hashThreads.ts'

export interface PasswordsOptions {
  /** The cost of bcrypt, 10 or more (OWASP Password Storage). Each step doubles the time of a hash. */
  cost: number
  threads: HashThreads
  /** Jobs that can wait for a thread. If one more arrives, the newest job of the largest party is rejected at once. */
  maxQueue: number
  /** Jobs of one account that can wait or run. */
  maxPerAccount: number
}

/** The client that waits for a hash. Its network takes turns with the other networks. */
export interface Client {
  address: string
  /** Aborts when the client disconnects. */
  signal?: AbortSignal
}

/** A client, and the normalised username whose password is hashed. There may be no such account. */
export interface HashOwner extends Client {
  account: string
}

/** The client for hashes that no client waits for: those of commands and of the demo user. */
export const localClient: Client = { address: 'local' }

export interface Passwords {
  /** Returns the text to store. Rejects with `unavailable` if the queue is full, or the client disconnects while the job waits. */
  hash(password: string, owner: HashOwner): Promise<string>
  /**
   * Whether `stored` was made from this password. Costs as much as one hash, even if `stored` is null (there is no such
   * user), a hash of a lower cost, or not a hash at all. A hash of a higher cost takes longer. Rejects as `hash` does.
   */
  verify(password: string, stored: string | null, owner: HashOwner): Promise<boolean>
  /** Whether a new hash of the same password would be stronger, by another scheme or a higher cost. */
  isOutdated(stored: string): boolean
  /** Jobs that wait for a thread. */
  queued(): number
  /** The work done so far, in hashes of the configured cost. */
  hashes(): number
  /** Rejects the jobs that wait or run. */
  close(): void
}

interface Job extends Party {
  task: HashTask
  resolve(value: HashResult['value']): void
  reject(error: Error): void
}

const scheme = 'hmac-sha256+bcrypt:' // marks our own hashes; others are bare bcrypt
const bcryptFormat = /^\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}$/
const minCost = 4 // below it bcrypt throws
const maxCost = 16 // a stored hash of cost 31 would keep a thread busy for years
const bcryptBytes = 72 // bcrypt ignores the bytes of a password after these

/** Resolves when the threads have made the hash that the passwords of unknown users are compared with. */
export async function openPasswords({ cost, threads, maxQueue, maxPerAccount }: PasswordsOptions): Promise<Passwords> {
  const queue = createFairQueue<Job>({ maxWaiting: maxQueue, maxPerAccount })
  const running = new Set<Job>()
  let work = 0
  let closed = false

  function assign(): void {
    while (running.size < threads.count) {
      const job = queue.next()
      if (job === null) return
      running.add(job)
      threads
        .run(job.task)
        .then(result => {
          work += result.work
          job.resolve(result.value)
        })
        .catch(job.reject)
        .finally(() => {
          running.delete(job)
          queue.done(job)
          assign()
        })
    }
  }

  function run(task: HashTask, { address, account, signal }: HashOwner): Promise<HashResult['value']> {
    if (closed) return Promise.reject(closing())
    if (signal?.aborted) return Promise.reject(disconnected())
    return new Promise((resolve, reject) => {
      const job: Job = { task, network: networkOf(address), account, resolve, reject }
      queue.add(job)?.reject(tooMany())
      // Only a waiting job is removed: stopping a hash that has begun would cost the restart of a thread.
      signal?.addEventListener('abort', () => queue.remove(job) && reject(disconnected()))
      assign()
    })
  }

  async function hash(password: string, owner: HashOwner): Promise<string> {
    return scheme + (await run({ digest: digestOf(password), cost }, owner))
  }

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
    close() {
      closed = true
      for (let job = queue.next(); job !== null; job = queue.next()) job.reject(closing())
      for (const job of running) job.reject(closing())
    },
  }
}

/**
 * What bcrypt hashes in place of the password: 44 characters without NUL. bcrypt itself reads only 72 bytes and repeats its
 * key after a NUL, so that different passwords would match. NFKC comes first, so that a password typed on another keyboard
 * is the same (NIST SP 800-63B-4 section 3.1.1.2). The HMAC key is not secret; it makes the digest useless against plain
 * SHA-256 sums that were leaked elsewhere.
 */
function digestOf(password: string): string {
  return createHmac('sha256', 'latchkey password').update(password.normalize('NFKC')).digest('base64')
}

function tooMany(): AppError {
  const headers = { 'Retry-After': '2' }
  return new AppError('unavailable', 'Too many log-ins are waiting already. Try again.', { headers })
}

function closing(): AppError {
  return new AppError('unavailable', 'The service is closing.')
}

function disconnected(): AppError {
  return new AppError('unavailable', 'The client disconnected.')
}

interface StoredHash {
  bcryptHash: string
  cost: number
  /** Whether this is bcrypt of the password itself, as other services make it. */
  isBare: boolean
}

function parseStored(stored: string): StoredHash | null {
  const isBare = !stored.startsWith(scheme)
  const bcryptHash = isBare ? stored : stored.slice(scheme.length)
  const cost = Number(bcryptFormat.exec(bcryptHash)?.[1])
  return cost >= minCost && cost <= maxCost ? { bcryptHash, cost, isBare } : null
}

/** Whether an account can be imported with this hash: bcrypt, with a cost that can be verified in reasonable time. */
export function isBcryptHash(text: string): boolean {
  return parseStored(text)?.isBare === true
}

/** Whether bcrypt alone would accept another password in place of this one. */
function isAmbiguous(password: string): boolean {
  return password.includes('\0') || Buffer.byteLength(password) > bcryptBytes
}
