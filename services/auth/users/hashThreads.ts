// Threads that compute bcrypt. Hides which thread is free, and that a thread that ends is replaced.
import { Worker } from 'node:worker_threads'
import { codeExtension } from '../../../shared/codeExtension.ts'
import { AppError } from '../../../shared/http/errors.ts'
import type { HashResult, HashTask } from './hashThread.ts'

export interface HashThreads {
  count: number
  /** Waits for a thread that is free. Rejects if the thread fails or ends. */
  run(task: HashTask): Promise<HashResult>
}

interface Job extends PromiseWithResolvers<HashResult> {
  task: HashTask
}

/** The threads run until the process ends, and do not keep it running while they have no job. */
export function startHashThreads(count: number): HashThreads {
  const free: Worker[] = []
  const waiting: Job[] = []
  const current = new Map<Worker, Job>()

  function start(): void {
    const thread = new Worker(new URL(`./hashThread${codeExtension}`, import.meta.url))
    thread.on('message', (result: HashResult) => {
      finish(thread)?.resolve(result)
      release(thread)
    })
    thread.on('error', cause => finish(thread)?.reject(new AppError('internal', 'Hashing failed.', { cause })))
    thread.on('exit', () => {
      finish(thread)?.reject(new AppError('unavailable', 'Hashing was interrupted.'))
      if (free.includes(thread)) free.splice(free.indexOf(thread), 1)
      start()
    })
    release(thread)
  }

  /** Returns the job that the thread had. */
  function finish(thread: Worker): Job | undefined {
    const job = current.get(thread)
    current.delete(thread)
    return job
  }

  function release(thread: Worker): void {
    thread.unref()
    free.push(thread)
    assign()
  }

  function assign(): void {
    const thread = free.at(-1)
    const job = waiting[0]
    if (thread === undefined || job === undefined) return
    free.pop()
    waiting.shift()
    current.set(thread, job)
    thread.ref()
    thread.postMessage(job.task)
  }

  for (let i = 0; i < count; i++) start()
  return {
    count,
    run(task) {
      const job: Job = { task, ...Promise.withResolvers<HashResult>() }
      waiting.push(job)
      assign()
      return job.promise
    },
  }
}
