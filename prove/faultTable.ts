// The table of faults in the report, and how figures are written there. Hides how one row combines the figures of several stores.
import type { DriveResult, FaultResult } from './drive.ts'
import { inWords, isKeptUnder } from './promises.ts'

type Drives = readonly { result: DriveResult; admissions: number[] }[]

/** One row for each kind of fault. */
export const faultTable = (
  drives: Drives,
) => `| fault | stores | times | promised | /data 200 · 401 · 503 | slowest | undone in, p50 · max | recovery p50 · max | lost | false admissions | |
|---|---|--:|---|--:|--:|--:|--:|--:|--:|---|
${faultRows(drives).join('\n')}`

export const number = (value: number) => Math.round(value).toLocaleString('en')
export const ms = (value: number) => (value === Infinity ? 'never' : `${number(value)} ms`)
export const kept = (isKept: boolean) => (isKept ? 'kept' : '**not kept**')

function faultRows(drives: Drives): string[] {
  const rows = new Map<string, { fault: FaultResult; admitted: number }[]>()
  for (const { result, admissions } of drives) {
    for (const [i, fault] of result.faults.entries()) {
      const admitted = admissions[i] ?? 0
      const key = `${fault.kind.id} ${fault.kind.what}`
      rows.set(key, [...(rows.get(key) ?? []), { fault, admitted }])
    }
  }
  const order = (key: string) => Number(/\d+/.exec(key)?.[0])
  return [...rows]
    .sort(([a], [b]) => order(a) - order(b))
    .map(([key, all]) => {
      const faults = all.map(({ fault }) => fault)
      const { promise } = (faults[0] as FaultResult).kind
      const sum = (status: string) => faults.reduce((sum, { dataByStatus }) => sum + (dataByStatus[status] ?? 0), 0)
      const rest = Object.fromEntries(
        [...new Set(faults.flatMap(({ dataByStatus }) => Object.keys(dataByStatus)))]
          .filter(status => !['200', '401', '503', 'null'].includes(status))
          .map(status => [status, sum(status)]),
      )
      const data = [...['200', '401', '503'].map(sum).map(number), inWords(rest)]
        .filter(text => text !== '')
        .join(' · ')
      const admissions = all.reduce((sum, { admitted }) => sum + admitted, 0)
      const cells = [
        key,
        [...new Set(faults.map(({ storeName }) => storeName))].join(', '),
        faults.length,
        promise,
        data,
        ms(Math.max(...faults.map(({ slowestDataMs }) => slowestDataMs))),
        medianAndMost(faults.map(({ takingBackMs }) => takingBackMs)),
        medianAndMost(faults.map(({ recoveryMs }) => recoveryMs ?? Infinity)),
        faults.reduce((sum, { unanswered }) => sum + unanswered, 0),
        admissions,
        kept(faults.every(isKeptUnder) && admissions === 0),
      ]
      return `| ${cells.join(' | ')} |`
    })
}

function medianAndMost(times: number[]): string {
  const sorted = times.toSorted((a, b) => a - b)
  return `${ms(sorted[Math.floor((sorted.length - 1) / 2)] as number)} · ${ms(sorted.at(-1) as number)}`
}
