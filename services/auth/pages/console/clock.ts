// Tells the time by Auth's clock, in epoch milliseconds, because the clock of the user's machine may be wrong.
let ahead = 0
let uncertaintyMs = 0

/** Auth read its clock at some moment between `startedAt` (by `performance.now()`) and now. */
export function setClock(serverNow: number, startedAt: number): void {
  uncertaintyMs = (performance.now() - startedAt) / 2
  ahead = serverNow - startedAt - uncertaintyMs
}

export function now(): number {
  return ahead + performance.now()
}

/** Whether `at` is certainly in the past by Auth's clock. */
export function isPast(at: number): boolean {
  return now() - uncertaintyMs >= at
}
