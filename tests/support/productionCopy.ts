// Copies of what is shipped: as a clone, with the packages that `npm ci --omit=dev` installs, which finds no package beside them,
// because it has a folder of its own and links to nothing; and as an image.
import { execFileSync } from 'node:child_process'
import { chmodSync, cpSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

interface LockFile {
  packages: Record<string, { dev?: boolean }>
}

const shipped = ['startServer', 'commands', 'packages', 'services', 'shared', 'package.json', 'package-lock.json']

/** Copies what is shipped to `folder`, without packages. */
export function copyWithoutPackages(folder: string): void {
  for (const part of shipped) cpSync(part, join(folder, part), { recursive: true })
}

/** Copies the packages that the lock file does not mark as dev. */
export function installProductionPackages(folder: string): void {
  const { packages, ...lock } = JSON.parse(readFileSync('package-lock.json', 'utf8')) as LockFile
  const kept = new Set(Object.keys(packages).filter(path => path !== '' && packages[path]?.dev !== true))
  const isKept = (path: string) => !existsSync(join(path, 'package.json')) || !(path in packages) || kept.has(path)
  mkdirSync(join(folder, 'node_modules'), { recursive: true })
  for (const path of kept) {
    // Nested packages are copied with their parents.
    if (path.split('node_modules/').length > 2 || !existsSync(path)) continue
    cpSync(path, join(folder, path), { recursive: true, filter: isKept })
  }
  const installed = Object.fromEntries([...kept].map(path => [path, packages[path]]))
  const text = JSON.stringify({ ...lock, packages: installed }, null, 2)
  writeFileSync(join(folder, 'node_modules/.package-lock.json'), text)
}

/** Any user of the system can run the image, if the tests run as root. */
export const nobody = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {}

/** Copies what the Dockerfile copies to a folder within `folder`, which is returned. Every user can read it, and none can write. */
export function copyImage(folder: string): string {
  const image = join(folder, 'app')
  chmodSync(folder, 0o755)
  for (const part of ['package.json', 'packages', 'shared', 'services', 'commands']) {
    cpSync(part, join(image, part), { recursive: true })
  }
  symlinkSync(join(process.cwd(), 'node_modules'), join(image, 'node_modules'))
  execFileSync('chmod', ['-R', 'a+rX,a-w', image])
  return image
}
