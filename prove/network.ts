// The network between the hosts of Business, Auth and the store loses packets: the faults, and their section of the report. No
// connection is refused or reset, so each end must notice by itself.
import type { FaultKind } from './faults.ts'
import { faultTable } from './faultTable.ts'
import type { HostName, Hosts } from './hosts.ts'
import type { Pair } from './pair.ts'

const hostsOf = ({ hosts }: Pair) => hosts as Hosts
const inWords: Record<HostName, string> = { business: 'Business', auth: 'Auth', store: 'its store' }

const common = {
  id: 'F26',
  stores: ['postgres', 'redis'],
  promise: '503 within the deadline if there is no verdict; each verdict is correct; Latchkey recovers by itself',
  lastsMs: [1000, 5000],
  // The kernel sends what a closed connection had to send, at growing intervals: after a fault of 5 s perhaps 5 s later.
  settlesInMs: 10_000,
  end: pair => hostsOf(pair).heal(),
} satisfies Partial<FaultKind>

function faultsBetween(client: HostName, server: HostName): FaultKind[] {
  const there = `${inWords[client]} to ${inWords[server]}`
  const both = async (pair: Pair, share: number) => {
    await hostsOf(pair).drop(client, server, share)
    await hostsOf(pair).drop(server, client, share)
  }
  return [
    {
      ...common,
      what: `${there}: packets vanish, those on the way back arrive`,
      begin: pair => hostsOf(pair).drop(client, server, 1),
    },
    {
      ...common,
      what: `${there}: packets on the way back vanish, the others arrive`,
      begin: pair => hostsOf(pair).drop(server, client, 1),
    },
    { ...common, what: `${there}: all packets vanish, both ways`, begin: pair => both(pair, 1) },
    { ...common, what: `${there}: 10 % of the packets vanish, both ways`, begin: pair => both(pair, 0.1) },
    { ...common, what: `${there}: 30 % of the packets vanish, both ways`, begin: pair => both(pair, 0.3) },
  ]
}

/** For a pair on hosts of its own. */
export const networkFaults: FaultKind[] = [...faultsBetween('business', 'auth'), ...faultsBetween('auth', 'store')]

export function networkSection(drives: Parameters<typeof faultTable>[0]): string {
  if (drives.length === 0) return ''
  return `
## Packets that vanish (F26)

Business, Auth and the store run on hosts of their own: network namespaces of this machine, with a bridge between them. For one to five
seconds the host that would receive packets drops them. Nothing is refused or reset, so each end must notice the silence by itself.

${faultTable(drives)}
`
}
