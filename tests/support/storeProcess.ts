// A process that only opens a token store, to see that a closed store keeps no process alive.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { newHash } from './storeFixtures.ts'

/** A process that opens a store, uses it, and waits for a message to close it. */
export function startStoreProcess(url: string) {
  const text = `
    import { openTokenStore } from '${import.meta.resolve('../../services/auth/stores/index.ts')}'
    const store = await openTokenStore('${url}')
    await store.touch([{ id: 'abcd0123456789', hash: '${newHash()}' }], ${Date.now()}, null)
    await store.deleteExpired(${Date.now()}, 1)
    process.once('message', () => {
      process.disconnect()
      void store.close()
    })
    process.send('ready')
  `
  const child = spawn(process.execPath, ['--input-type=module', '--eval', text], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  return {
    ready: once(child, 'message'),
    /** Makes the process close its store and end; resolves to the exit code. */
    async close(): Promise<string> {
      const watch = setTimeout(() => child.kill('SIGKILL'), 2000)
      child.send('close')
      const [code, signal] = await once(child, 'exit')
      clearTimeout(watch)
      return `${code ?? signal}`
    },
  }
}
