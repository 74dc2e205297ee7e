// One of two Auths on one store fails: the faults, and how long /data is 503 then. Business knows both, one of them through a line
// that can be disturbed.
import type { FaultResult } from './drive.ts'
import type { FaultKind } from './faults.ts'
import type { Pair, Process } from './pair.ts'
import { mostDataMs } from './promises.ts'

const otherAuthOf = ({ otherAuth }: Pair) => otherAuth as Process

const common = {
  id: 'F25',
  stores: ['postgres', 'redis'],
  promise: '503 for at most one deadline, only for requests in flight there; then none, as if it were not there',
  lastsMs: [2500, 4000],
  // The deadline of Business is one second. The rest allows for a machine shared with twenty clients.
  maxUnavailableMs: mostDataMs,
} satisfies Partial<FaultKind>

/** The faults of a pair with two Auths. */
export const twoAuthFaults: FaultKind[] = [
  {
    ...common,
    what: 'One of two Auths is killed (SIGKILL) and started again',
    begin: pair => otherAuthOf(pair).kill(),
    end: pair => otherAuthOf(pair).start(),
  },
  {
    ...common,
    what: 'One of two Auths hangs (SIGSTOP)',
    begin: pair => otherAuthOf(pair).hang(),
    end: pair => otherAuthOf(pair).resume(),
  },
  {
    ...common,
    what: 'One of two Auths is stopped (SIGTERM) and started again',
    promise: 'no 503 at all',
    maxUnavailableMs: 0,
    begin: async pair => void (await otherAuthOf(pair).stop()),
    end: pair => otherAuthOf(pair).start(),
  },
  {
    ...common,
    what: 'Business to one of two Auths: bytes vanish, connections stay open',
    begin({ authLine }) {
      authLine.state = 'silent'
    },
    end({ authLine }) {
      authLine.state = 'open'
      authLine.cut() // a connection that has lost bytes stays silent
    },
  },
]

/** A table of how long the 503s lasted; empty if no such fault was injected. */
export function twoAuthsSection(faults: FaultResult[]): string {
  const rows = twoAuthFaults.flatMap(({ what }) => {
    const all = faults.filter(({ kind }) => kind.what === what)
    if (all.length === 0) return []
    const sum = (status: string) => all.reduce((sum, { dataByStatus }) => sum + (dataByStatus[status] ?? 0), 0)
    const stores = [...new Set(all.map(({ storeName }) => storeName))].join(', ')
    const cells = [
      what,
      stores,
      all.length,
      number(sum('200') + sum('401')),
      number(sum('503')),
      unavailableInWords(all),
    ]
    return [`| ${cells.join(' | ')} |`]
  })
  if (rows.length === 0) return ''
  return `
## One of two Auths (F25)

Business balances its calls over two Auths on one store. The last column is the time from the beginning of the fault to the last 503 that
a \`/data\` got, however long the fault lasts (up to four seconds) and while the Auth comes back.

| fault | stores | times | /data 200 or 401 | 503 | the last 503, p50 · max |
|---|---|--:|--:|--:|--:|
${rows.join('\n')}
`
}

export function unavailableInWords(faults: FaultResult[]): string {
  const sorted = faults.map(({ unavailableMs }) => unavailableMs).toSorted((a, b) => a - b)
  const at = (index: number) => `${Math.round(sorted[index] as number).toLocaleString('en')} ms`
  return `${at(Math.floor((sorted.length - 1) / 2))} · ${at(sorted.length - 1)}`
}

const number = (value: number) => value.toLocaleString('en')
