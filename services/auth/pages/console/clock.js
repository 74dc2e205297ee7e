// The time as Auth has it, in epoch milliseconds. Rings drain by this: the clock of the reader's machine may be wrong.
let ahead = 0
let uncertainMs = 0

/**
 * Auth read its clock at some moment between `startedAt` and now.
 * @param {number} serverNow
 * @param {number} startedAt Of `performance.now()`.
 */
export function setClock(serverNow, startedAt) {
  uncertainMs = (performance.now() - startedAt) / 2
  ahead = serverNow - startedAt - uncertainMs
}

export function now() {
  return ahead + performance.now()
}

/** Whether it is past for Auth, too, whatever is uncertain here. @param {number} at */
export function isPast(at) {
  return now() - uncertainMs >= at
}
