// The network between the hosts of Business, Auth and the store loses packets, or splits a Redis Cluster: the faults, and their
// section of the report. No connection is refused or reset, so each end must notice by itself.
import type { FaultKind } from './faults.ts'
import { faultTable } from './faultTable.ts'
import type { HostName, Hosts } from './hosts.ts'
import type { Pair } from './pair.ts'

const hostsOf = ({ hosts }: Pair) => hosts as Hosts
const inWords = { business: 'Business', auth: 'Auth', store: 'its store' } as const
type Part = keyof typeof inWords

const common = {
  id: 'F26',
  stores: ['postgres', 'redis'],
  promise: '503 within the deadline if there is no verdict; each verdict is correct; Latchkey recovers by itself',
  lastsMs: [1000, 5000],
  // The kernel sends what a closed connection had to send, at growing intervals: after a fault of 5 s perhaps 5 s later.
  settlesInMs: 10_000,
  end: pair => hostsOf(pair).heal(),
} satisfies Partial<FaultKind>

/** Drops this share of the packets between two hosts, both ways. */
async function dropBoth(pair: Pair, one: HostName, other: HostName, share = 1): Promise<void> {
  await hostsOf(pair).drop(one, other, share)
  await hostsOf(pair).drop(other, one, share)
}

function faultsBetween(client: Part, server: Part): FaultKind[] {
  const there = `${inWords[client]} to ${inWords[server]}`
  const both = (pair: Pair, share: number) => dropBoth(pair, client, server, share)
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

/** The faults of a pair on hosts of its own. */
export const networkFaults: FaultKind[] = [...faultsBetween('business', 'auth'), ...faultsBetween('auth', 'store')]

const [smaller, larger] = ['store', 'otherStore'] as const
const split = {
  ...common,
  id: 'F27',
  stores: ['redis'],
  promise:
    '503 for tokens of the smaller side until its replica is promoted, which may lack sessions, but no revocation',
  lastsMs: [4000, 7000], // a replica is promoted two seconds after the split or later
  losesTokens: () => true,
} satisfies Partial<FaultKind>

/** The faults of a pair on a Redis Cluster with two sides. */
export const splitFaults: FaultKind[] = [
  { ...split, what: 'A Redis Cluster is split, and Auth reaches both sides', begin: pair => splitFrom(pair, null) },
  {
    ...split,
    what: 'A Redis Cluster is split, and Auth reaches the larger side',
    begin: pair => splitFrom(pair, smaller),
  },
  {
    ...split,
    what: 'A Redis Cluster is split, and Auth reaches the smaller side',
    promise: '503 until the split ends; sessions may be lacking then, but no revocation',
    begin: pair => splitFrom(pair, larger),
  },
]

/** Splits the cluster, and cuts off one side from Auth. */
async function splitFrom(pair: Pair, side: HostName | null): Promise<void> {
  await pair.cluster?.restore()
  await dropBoth(pair, smaller, larger)
  if (side !== null) await dropBoth(pair, 'auth', side)
}

export function networkSection(drives: Parameters<typeof faultTable>[0]): string {
  if (drives.length === 0) return ''
  return `
## Packets that vanish (F26, F27)

Business, Auth and the store run on hosts of their own: network namespaces of this machine, joined by a bridge. The host that would
receive packets drops them, for one to five seconds. Nothing is refused or reset, so each end must notice the silence by itself.

For F27 the tokens are in a Redis Cluster with a master on one host, and its replica and two more masters on another one. For four to
seven seconds no packet gets from one side to the other. The larger side promotes the replica, which may lack the last changes.

${faultTable(drives)}
`
}
