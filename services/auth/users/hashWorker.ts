// The thread that computes bcrypt: 50 ms and more at a time, which the thread that validates tokens must never spend.
import { setPriority } from 'node:os'
import { parentPort } from 'node:worker_threads'
import bcrypt from 'bcryptjs'

/** Hash `digest` at `cost`; or, with `hash`, compare it with that and spend as much as a hash of `cost`, if not more. */
export interface HashTask {
  digest: string
  cost: number
  hash?: string
}

export interface HashResult {
  /** The hash, or whether the two match. */
  value: string | boolean
  /** What bcrypt was asked to do: 2^cost for each of its hashes. */
  work: number
}

// Without enough cores for all threads the others go first. On Linux 0 is this thread, elsewhere the whole process.
if (process.platform === 'linux') setPriority(0, 5)

parentPort?.on('message', (task: HashTask) => parentPort?.postMessage(run(task)))

function run({ digest, cost, hash }: HashTask): HashResult {
  if (hash === undefined) return { value: bcrypt.hashSync(digest, cost), work: 2 ** cost }
  const value = bcrypt.compareSync(digest, hash)
  const storedCost = bcrypt.getRounds(hash)
  let work = 2 ** storedCost
  // One hash of each cost in between is exactly what is missing: 2^a + 2^a + 2^(a+1) + … + 2^(b-1) = 2^b.
  for (let missing = storedCost; missing < cost; missing++) {
    bcrypt.hashSync(digest, missing)
    work += 2 ** missing
  }
  return { value, work }
}
