// Runs stores in another process: each call goes there, and its result comes back.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import type { TokenRecord, TokenStore } from '../../services/auth/stores/tokenPort.ts'
import type { UserStore } from '../../services/auth/stores/userPort.ts'

export interface Peer {
  tokens: TokenStore
  users: UserStore
  /** Opens the stores at this URL. `hasUsers` is false for a store that holds only tokens. */
  open(url: string, hasUsers?: boolean): Promise<void>
  /** Keeps this many inserts of tokens in flight for `ms`. */
  press(like: TokenRecord, inFlight: number, ms: number): Promise<void>
  signal(name: 'SIGSTOP' | 'SIGCONT'): void
  end(): Promise<void>
}

const script = `
  import { randomUUID } from 'node:crypto'
  import { openTokenStore, openUserStore } from '${import.meta.resolve('../../services/auth/stores/index.ts')}'
  const open = async (url, hasUsers) => {
    stores.tokens = await openTokenStore(url)
    if (hasUsers) stores.users = await openUserStore(url)
  }
  const press = async (like, inFlight, ms) => {
    const work = async until => {
      while (performance.now() < until) {
        const token = { ...like, id: randomUUID(), userId: randomUUID() }
        await stores.tokens.insert({ id: token.id, hash: 'a hash' }, token, { perUser: 5, total: Infinity }, like.createdAt)
      }
    }
    await Promise.all(Array.from({ length: inFlight }, () => work(performance.now() + ms)))
  }
  const stores = { own: { open, press } }
  process.on('disconnect', () => process.exit())
  process.on('message', ({ id, store, method, args }) => {
    stores[store][method](...args).then(
      value => process.send({ id, value }),
      error => process.send({ id, error: error.message }),
    )
  })
  process.send('ready')
`

export async function startPeer(owner: { uid?: number; gid?: number } = {}): Promise<Peer> {
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    serialization: 'advanced', // JSON cannot represent Infinity
    ...owner,
  })
  const calls: PromiseWithResolvers<unknown>[] = []
  await once(child, 'message')
  child.on('message', ({ id, value, error }: { id: number; value?: unknown; error?: string }) => {
    if (error === undefined) calls[id]?.resolve(value)
    else calls[id]?.reject(new Error(error))
  })

  const call = (store: string, method: string, args: unknown[]): Promise<unknown> => {
    const answer = Promise.withResolvers<unknown>()
    child.send({ id: calls.push(answer) - 1, store, method, args })
    return answer.promise
  }
  const remote = <T extends object>(store: string): T =>
    new Proxy({} as T, {
      get:
        (_, method: string) =>
        (...args: unknown[]) =>
          call(store, method, args),
    })

  return {
    tokens: remote('tokens'),
    users: remote('users'),
    open: async (url, hasUsers = true) => void (await call('own', 'open', [url, hasUsers])),
    press: async (...args) => void (await call('own', 'press', args)),
    signal: name => void child.kill(name),
    async end() {
      child.kill('SIGKILL')
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
    },
  }
}
