// An example of docs/examples as a process, in the folder to which it was copied as `server.ts`.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { serviceKey } from './credentials.ts'

export interface Example {
  process: ChildProcess
  url: string
  output(): string
  /** Resolves to the exit code. */
  ended: Promise<number | null>
}

const running = new Set<ChildProcess>()

/** Resolves once the example listens. */
export async function startExample(folder: string, authUrl: string): Promise<Example> {
  const child = spawn(process.execPath, ['server.ts'], {
    cwd: folder,
    env: { PORT: '0', SERVICE_KEY: serviceKey, AUTH_INTERNAL_URL: authUrl },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  running.add(child)
  let output = ''
  const ended = once(child, 'close').then(([code]) => {
    running.delete(child)
    return code as number | null
  })
  const url = await new Promise<string>((resolve, reject) => {
    child.stderr.on('data', chunk => {
      output += chunk
    })
    child.stdout.on('data', chunk => {
      output += chunk
      const port = /^listening .*?(?:port: |1:)(\d+)/m.exec(output)?.[1]
      if (port) resolve(`http://127.0.0.1:${port}`)
    })
    ended.then(code => reject(new Error(`the example in ${folder} ended with ${code}:\n${output}`)))
  })
  return { process: child, url, output: () => output, ended }
}

/** For a suite's `after`. */
export function killExamples(): void {
  for (const child of running) child.kill('SIGKILL')
}
