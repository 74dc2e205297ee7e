// The thread that computes bcrypt. A hash takes 50 ms and more, which must never block the thread that validates tokens.
import { setPriority } from 'node:os'
import { parentPort } from 'node:worker_threads'
import bcrypt from 'bcryptjs'

/** Hash `digest` at `cost`. With `hash`, compare `digest` with it instead, and do at least as much work as for hashing. */
export interface HashTask {
  digest: string
  cost: number
  hash?: string
}

export interface HashResult {
  /** The hash, or whether `digest` matches the given hash. */
  value: string | boolean
  /** The work done: 2^cost for each hash. */
  work: number
}

// If there are fewer cores than threads, the other threads go first. On Linux, 0 means this thread; elsewhere, the process.
if (process.platform === 'linux') setPriority(0, 5)

parentPort?.on('message', (task: HashTask) => parentPort?.postMessage(run(task)))

function run({ digest, cost, hash }: HashTask): HashResult {
  if (hash === undefined) return { value: bcrypt.hashSync(digest, cost), work: 2 ** cost }
  const value = bcrypt.compareSync(digest, hash)
  const storedCost = bcrypt.getRounds(hash)
  let work = 2 ** storedCost
  // One hash of each cost in between adds exactly what is missing: 2^a + 2^a + 2^(a+1) + … + 2^(b-1) = 2^b.
  for (let missing = storedCost; missing < cost; missing++) {
    bcrypt.hashSync(digest, missing)
    work += 2 ** missing
  }
  return { value, work }
}
