// The client as its users get it: packed by npm, and installed in a folder of their own. Needs no network.
import { execFileSync } from 'node:child_process'
import { cpSync, globSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

const project = process.cwd()

/** The packages that a service with this framework installs beside the client. */
export const packagesOf = {
  koa: ['koa'],
  express: ['express'],
  fastify: ['fastify'],
  hono: ['hono', '@hono/node-server'],
  node: [],
} as const

export type Framework = keyof typeof packagesOf

export const frameworks = Object.keys(packagesOf) as Framework[]

/**
 * Copies what `npm pack` needs into the folder, so that test files that pack at once do not share `dist`, and runs the
 * command there. Returns the path of the package.
 */
export function packClient(folder: string, command = 'npm pack ./packages/client'): string {
  cpSync('packages/client', join(folder, 'packages/client'), { recursive: true })
  cpSync('tsconfig.json', join(folder, 'tsconfig.json'))
  symlinkSync(join(project, 'node_modules'), join(folder, 'node_modules'))
  execFileSync('sh', ['-euc', command], { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] })
  return join(folder, globSync('latchkey-client-*.tgz', { cwd: folder })[0] as string)
}

/** Runs `npm install` of the package in a new folder. `undici` and the other packages come from this project. */
export function installClient(folder: string, archive: string, packages: readonly string[] = []): void {
  mkdirSync(join(folder, 'node_modules'), { recursive: true })
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}')
  cpSync(join(project, 'node_modules/undici'), join(folder, 'node_modules/undici'), { recursive: true })
  execFileSync('npm', ['install', '--offline', '--no-audit', '--no-fund', archive], {
    cwd: folder,
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  for (const name of packages) link(folder, name)
}

export function link(folder: string, name: string): void {
  const path = join(folder, 'node_modules', name)
  mkdirSync(dirname(path), { recursive: true })
  symlinkSync(join(project, 'node_modules', name), path)
}
