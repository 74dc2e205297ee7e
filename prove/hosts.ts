// Hosts on this machine: network namespaces for Business, Auth and the store, joined by a bridge. Packets between two of
// them can vanish. Hides ip and iptables; nothing of it outlives this process.
import { execFile, execFileSync } from 'node:child_process'
import { promisify } from 'node:util'
import type { Host } from '../tests/support/host.ts'

const names = ['business', 'auth', 'store', 'otherStore'] as const
export type HostName = (typeof names)[number]

export interface Hosts extends Record<HostName, Host> {
  /** Drops this share of the packets from one host to another; 1 drops all. */
  drop(from: HostName, to: HostName, share: number): Promise<void>
  /** Lets all packets through again. */
  heal(): Promise<void>
  close(): void
}

const run = promisify(execFile)
/** The part of all names and addresses that another run does not have. A name of an interface has at most 15 characters. */
const bridge = `lk${process.pid}`
const network = `10.198.${process.pid % 256}`
const cleanUps = new Set<() => void>()
process.on('exit', () => {
  for (const cleanUp of cleanUps) cleanUp()
})

/** Null if this machine can have such hosts. */
export function whyNoHosts(): string | null {
  if (process.getuid?.() !== 0) return 'only root can make network namespaces'
  try {
    const hosts = openHosts()
    try {
      execFileSync('ip', ['netns', 'exec', namespaceOf('auth'), 'iptables', ...loss('127.0.0.1', 0.5)], {
        stdio: 'pipe',
      })
    } finally {
      hosts.close()
    }
    return null
  } catch (error) {
    return `ip or iptables failed: ${(error as Error).message.trim().replaceAll(/\s+/g, ' ')}`
  }
}

/** One set at a time in this process. */
export function openHosts(): Hosts {
  cleanUps.add(close)
  try {
    ip('link', 'add', bridge, 'type', 'bridge')
    ip('address', 'add', `${network}.1/24`, 'dev', bridge)
    ip('link', 'set', bridge, 'up')
    for (const [i, name] of names.entries()) {
      const [namespace, cable] = [namespaceOf(name), `${bridge}-${i}`]
      ip('netns', 'add', namespace)
      ip('link', 'add', cable, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', namespace)
      ip('link', 'set', cable, 'master', bridge, 'up')
      ip('-n', namespace, 'address', 'add', `${addressOf(i)}/24`, 'dev', 'eth0')
      for (const link of ['lo', 'eth0']) ip('-n', namespace, 'link', 'set', link, 'up')
    }
  } catch (error) {
    close()
    throw error
  }
  const [business, auth, store, otherStore] = names.map(hostOf) as [Host, Host, Host, Host]
  const hosts = { business, auth, store, otherStore }

  return {
    ...hosts,
    drop: (from, to, share) => firewall(hosts[to], loss(hosts[from].address, share)),
    async heal() {
      await Promise.all(Object.values(hosts).map(host => firewall(host, ['-w', '-F', 'INPUT'])))
    },
    close,
  }
}

function hostOf(name: HostName, i: number): Host {
  return { address: addressOf(i), launcher: ['ip', 'netns', 'exec', namespaceOf(name)] }
}

/** Where the packets arrive: a packet that is dropped where it is sent is reported to the sender. */
function loss(from: string, share: number): string[] {
  const some = share === 1 ? [] : ['-m', 'statistic', '--mode', 'random', '--probability', String(share)]
  return ['-w', '-A', 'INPUT', '-s', from, ...some, '-j', 'DROP']
}

/** Does not block: the clients run in this process. */
async function firewall({ launcher }: Host, args: string[]): Promise<void> {
  await run(launcher[0] as string, [...launcher.slice(1), 'iptables', ...args])
}

function close(): void {
  cleanUps.delete(close)
  const commands = [
    // A namespace exists until its last process has ended, but its cable goes at once.
    ...names.map((_name, i) => ['link', 'delete', `${bridge}-${i}`]),
    ...names.map(name => ['netns', 'delete', namespaceOf(name)]),
    ['link', 'delete', bridge],
  ]
  for (const command of commands) {
    try {
      ip(...command)
    } catch {} // it was not made
  }
}

const namespaceOf = (name: HostName) => `latchkey-${process.pid}-${name}`
const addressOf = (i: number) => `${network}.${i + 2}`
const ip = (...args: string[]) => void execFileSync('ip', args, { stdio: 'pipe' })
