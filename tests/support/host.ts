// Where a server of a test runs: on this machine, or in a network namespace with an address of its own.
export interface Host {
  address: string
  /** The command that starts a process there; empty for this host. */
  launcher: string[]
}

export const thisHost: Host = { address: '127.0.0.1', launcher: [] }
