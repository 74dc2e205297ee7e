// Dockerfile, docker-compose.yml and Procfile, as far as they can be checked without a container engine.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { parse } from 'yaml'
import { authSettings } from '../services/auth/config.ts'
import { businessSettings } from '../services/business/config.ts'
import { adminKey, serviceKey } from './support/servers.ts'

interface ComposeService {
  build: { target: string }
  environment: Record<string, string>
  ports: string[]
  networks: string[]
  read_only: boolean
  cap_drop: string[]
}

const compose = parse(readFileSync('docker-compose.yml', 'utf8'), { merge: true }) as {
  services: Record<string, ComposeService>
  networks: Record<string, { internal?: boolean }>
}
const dockerfile = readFileSync('Dockerfile', 'utf8')
const settings: Record<string, unknown> = { ...authSettings, ...businessSettings }

/** The instructions of a stage and of those it is built from. */
function stage(name: string): string {
  const stages = dockerfile.split(/^(?=FROM )/m)
  const own = stages.find(text => new RegExp(`^FROM \\S+ AS ${name}$`, 'm').test(text)) ?? ''
  const base = /^FROM (\S+)/.exec(own)?.[1] ?? ''
  return (stages.some(text => text.includes(` AS ${base}\n`)) ? stage(base) : '') + own
}

const command = (name: string) => JSON.parse(/^CMD (\[.*\])$/m.exec(stage(name))?.[1] ?? '[]') as string[]

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  await once(server, 'close')
  return port
}

async function answersAt(url: string): Promise<boolean> {
  for (const giveUpAt = performance.now() + 8000; performance.now() < giveUpAt; ) {
    const answer = await fetch(url).catch(() => null)
    if (answer?.ok) return true
    await new Promise(resolve => setTimeout(resolve, 50))
  }
  return false
}

describe('docker-compose.yml', () => {
  it('is valid by the schema of Compose, without warnings', () => {
    const output = execFileSync('node', ['node_modules/.bin/dclint', '--max-warnings', '0', 'docker-compose.yml'])
    expect(String(output).trim()).to.equal('')
  })

  it('publishes the two public listeners, on loopback, and nothing else', () => {
    const published = Object.values(compose.services).flatMap(({ ports }) => ports)
    expect(published.map(port => port.replace(/\$\{\w+:-(\d+)\}/, '$1'))).to.have.members([
      '127.0.0.1:3000:3000',
      '127.0.0.1:3001:3001',
    ])
    expect(compose.networks['internal']?.internal).to.equal(true)
  })

  it('runs both without write access and without capabilities', () => {
    for (const [name, { read_only, cap_drop }] of Object.entries(compose.services)) {
      expect(read_only, name).to.equal(true)
      expect(cap_drop, name).to.deep.equal(['ALL'])
    }
  })

  it('sets nothing that is not a setting, and no secret of its own', () => {
    for (const { environment } of Object.values(compose.services)) {
      expect(Object.keys(settings)).to.include.members(Object.keys(environment))
      expect(environment['SERVICE_KEY']).to.match(/^\$\{SERVICE_KEY:\?/)
    }
  })
})

describe('the Dockerfile', () => {
  for (const { build } of Object.values(compose.services)) {
    it(`has ${build.target}: not root, no shell, a health check that asks a real route`, () => {
      const text = stage(build.target)
      expect(text).to.match(/^USER node$/m)
      expect(command(build.target)[0]).to.equal('node')
      expect(existsSync(command(build.target)[1] as string)).to.equal(true)
      const [, port, path] = /fetch\('http:\/\/127\.0\.0\.1:(\d+)(\/\w+)'\)/.exec(text) ?? []
      expect(text).to.match(new RegExp(`^EXPOSE ${port}\\b`, 'm'))
      expect(readFileSync(`services/${build.target}/app.ts`, 'utf8')).to.include(`'GET ${path}'`)
    })
  }

  it('copies what is there and what .dockerignore lets through, and holds no secret', () => {
    const sources = [...dockerfile.matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(([, list]) =>
      String(list).split(' '),
    )
    expect(sources).to.have.members(['package.json', 'package-lock.json', 'package.json', 'shared', 'services'])
    const ignored = readFileSync('.dockerignore', 'utf8')
    for (const source of sources) expect(ignored).to.include(`!${source}\n`)
    expect(dockerfile).to.not.match(/(KEY|PASSWORD|SECRET)=/)
  })

  it('runs its commands as an unprivileged user who can write nowhere', async function () {
    this.timeout(20_000)
    const folder = mkdtempSync(join(tmpdir(), 'latchkey-image-'))
    for (const part of ['package.json', 'shared', 'services']) cpSync(part, join(folder, part), { recursive: true })
    symlinkSync(join(process.cwd(), 'node_modules'), join(folder, 'node_modules'))
    execFileSync('chmod', ['-R', 'a+rX,a-w', folder])
    const nobody = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {}
    const ports = { AUTH_PORT: await freePort(), AUTH_INTERNAL_PORT: await freePort(), BUSINESS_PORT: await freePort() }
    const env = {
      ...{
        NODE_ENV: 'production',
        SERVICE_KEY: serviceKey,
        ADMIN_KEY: adminKey,
        AUTH_INTERNAL_URL: `http://127.0.0.1:${ports.AUTH_INTERNAL_PORT}`,
      },
      ...Object.fromEntries(Object.entries(ports).map(([name, port]) => [name, String(port)])),
    }
    const run = (target: string) =>
      spawn(process.execPath, command(target).slice(1), { cwd: folder, env, stdio: 'ignore', ...nobody })
    const children = [run('auth'), run('business')]
    try {
      expect(await answersAt(`http://127.0.0.1:${ports.BUSINESS_PORT}/ready`)).to.equal(true)
    } finally {
      const ends = children.map(child => once(child, 'exit'))
      for (const child of children) child.kill('SIGTERM')
      expect((await Promise.all(ends)).map(([code]) => code)).to.deep.equal([0, 0])
      execFileSync('chmod', ['-R', 'u+w', folder])
      rmSync(folder, { recursive: true })
    }
  })
})

describe('the Procfile', () => {
  it('has a web process that listens on $PORT and ends well on SIGTERM', async function () {
    this.timeout(20_000)
    const web = /^web: (.*)$/m.exec(readFileSync('Procfile', 'utf8'))?.[1] as string
    const PORT = String(await freePort())
    const [AUTH_PORT, AUTH_INTERNAL_PORT] = ['0', '0']
    const env = {
      ...process.env,
      NODE_ENV: 'production',
      SERVICE_KEY: serviceKey,
      ADMIN_KEY: adminKey,
      PORT,
      AUTH_PORT,
      AUTH_INTERNAL_PORT,
    }
    const child = spawn('bash', ['-c', web], { env, stdio: 'ignore' })
    expect(await answersAt(`http://127.0.0.1:${PORT}/ready`)).to.equal(true)
    child.kill('SIGTERM')
    expect((await once(child, 'exit'))[0]).to.equal(0)
  })
})
