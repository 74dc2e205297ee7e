// Auth's clock as the checker knows it: how far the faults may have moved it between two instants.
import type { Fault, HistoryHeader } from './history.ts'

export interface Clock {
  /** How far Auth's clock may have been set back between the two instants. */
  back(fromMs: number, toMs: number): number
  forward(fromMs: number, toMs: number): number
  toleranceMs: number
}

export function clockOf({ toleranceMs }: HistoryHeader, faults: Fault[]): Clock {
  const shifts = faults.filter(({ clockShiftMs }) => clockShiftMs !== 0)
  const sum = (fromMs: number, toMs: number, direction: 1 | -1) =>
    shifts
      .filter(shift => shift.beginMs <= toMs && shift.endMs >= fromMs)
      .reduce((total, { clockShiftMs }) => total + Math.max(0, direction * clockShiftMs), 0)
  return {
    back: (fromMs, toMs) => sum(fromMs, toMs, -1),
    forward: (fromMs, toMs) => sum(fromMs, toMs, 1),
    toleranceMs,
  }
}
