// npm run dev: ./startServer, restarted when the code changes. Does not use `node --watch`, which sends its own messages over
// the channel on which the services report their addresses.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { watch } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { readArguments } from '../commands/arguments.ts'

readArguments(
  `Usage: npm run dev

Starts Auth and Business as ./startServer does, and again whenever their code changes, until Ctrl-C. A restart loses what is in
memory: set TOKEN_STORE_URL and USER_STORE_URL to keep sessions and users.

  --help   show this`,
  {},
)

/** An editor that saves several files at once causes one restart. */
const settleMs = 100

let child: ChildProcess
let isStopping = false
let isChanged = false
let changed = Promise.withResolvers<void>()

for (const folder of ['services', 'shared', 'packages', 'commands']) {
  watch(folder, { recursive: true }, (_event, file) => {
    if (file === null || !/\.(ts|js|json|html|css|svg|lua)$/.test(file)) return
    isChanged = true
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM')
    changed.resolve()
  })
}
// On Ctrl-C the terminal signals the child too; other signals reach only this process.
process.on('SIGINT', () => stop('SIGINT'))
process.on('SIGTERM', () => stop('SIGTERM'))
process.on('SIGHUP', () => stop('SIGTERM'))

while (true) {
  isChanged = false
  changed = Promise.withResolvers()
  child = spawn(process.execPath, ['commands/start/startServer.ts'], { stdio: 'inherit' })
  const [code] = (await once(child, 'exit')) as [number | null]
  if (isStopping) process.exit(code ?? 1)
  if (!isChanged) {
    console.error('Waiting for a change of the code.')
    await changed.promise
  }
  await sleep(settleMs)
  console.error('The code changed; starting again.')
}

function stop(signal: NodeJS.Signals): void {
  isStopping = true
  if (child.exitCode !== null || child.signalCode !== null) process.exit(0)
  child.kill(signal)
}
