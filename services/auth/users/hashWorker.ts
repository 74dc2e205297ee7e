// The thread that computes bcrypt: 50 ms and more at a time, which the thread that validates tokens must never spend.
import { setPriority } from 'node:os'
import { parentPort } from 'node:worker_threads'
import bcrypt from 'bcryptjs'

/** `hash` is absent where one is to be made, at `cost`; else the answer says whether it is that of `digest`. */
export type HashTask = { digest: string } & ({ cost: number } | { hash: string })
export type HashResult = string | boolean

// Where there are fewer cores than threads that could use them the others go first. On Linux 0 is this thread, elsewhere the
// whole process.
if (process.platform === 'linux') setPriority(0, 5)

parentPort?.on('message', (task: HashTask) => {
  const result: HashResult =
    'cost' in task ? bcrypt.hashSync(task.digest, task.cost) : bcrypt.compareSync(task.digest, task.hash)
  parentPort?.postMessage(result)
})
