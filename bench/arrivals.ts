// A thread that announces requests at random instants (a Poisson process), one message each. A timer of the main thread
// would announce all requests of a millisecond together, and so make batches that no network makes.
import { parentPort, workerData } from 'node:worker_threads'

const { perSecond, seconds } = workerData as { perSecond: number; seconds: number }
const sleeper = new Int32Array(new SharedArrayBuffer(4))
const startedAt = performance.now()
let dueAt = startedAt
while (dueAt - startedAt < seconds * 1000) {
  dueAt += (-Math.log(1 - Math.random()) * 1000) / perSecond
  const wait = dueAt - performance.now()
  if (wait > 0) Atomics.wait(sleeper, 0, 0, wait)
  parentPort?.postMessage(null)
}
parentPort?.close()
