// The npm package of the client: what is in it, and that it works installed in an empty folder: in TypeScript and in
// JavaScript, with each framework, on the oldest Node.js that it supports and on this one.
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { expect } from 'chai'
import { serviceKey } from '../support/credentials.ts'
import { type FakeAuth, startFakeAuth } from '../support/fakeAuth.ts'
import { findNode22 } from '../support/node22.ts'
import { type Framework, frameworks, installClient, link, packagesOf, packClient } from '../support/packedClient.ts'

const parent = mkdtempSync(join(tmpdir(), 'latchkey-package-'))
const service = join(parent, 'my service')
const manifest = JSON.parse(readFileSync('packages/client/package.json', 'utf8'))

describe('the package latchkey-client', () => {
  const node22 = findNode22()
  const running = new Set<ChildProcess>()
  let archive: string
  let auth: FakeAuth

  /** Starts one of the services that `tsc` has built, and returns its address. */
  async function start(node: string, framework: Framework, authUrl: string): Promise<string> {
    const child = spawn(node, [`built/${framework}.js`], {
      cwd: service,
      env: { PORT: '0', SERVICE_KEY: serviceKey, AUTH_INTERNAL_URL: authUrl },
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    running.add(child)
    for await (const line of createInterface(child.stdout)) {
      const port = /(?:port: |1:)(\d+)/.exec(line)?.[1]
      if (port) return `http://127.0.0.1:${port}`
    }
    throw new Error(`${framework} ended with ${child.exitCode}`)
  }

  before(async () => {
    auth = await startFakeAuth()
    archive = packClient(join(parent, 'latchkey'))
    installClient(service, archive, Object.values(packagesOf).flat())
    for (const framework of frameworks) cpSync(`docs/examples/${framework}.ts`, join(service, `${framework}.ts`))
  })

  after(async () => {
    for (const child of running) child.kill('SIGKILL')
    await auth.stop()
    rmSync(parent, { recursive: true })
  })

  it('holds the built code with its types, the licence, the readme and no sources', () => {
    const files = execFileSync('tar', ['-tzf', archive], { encoding: 'utf8' }).trim().split('\n')
    const allowed = /^package\/(dist\/\w+\.(js|d\.ts)|conformance\/[\w-]+\.json|LICENSE|README\.md|package\.json)$/
    expect(files.filter(file => !allowed.test(file))).to.deep.equal([])
    expect(files).to.include.members(['package/LICENSE', 'package/README.md', 'package/package.json'])
    for (const { types, default: code } of Object.values<Record<string, string>>(manifest.exports)) {
      if (types && code) expect(files).to.include.members([join('package', types), join('package', code)])
    }
  })

  it('has the licence of the project, and undici as its only dependency', () => {
    expect(readFileSync('packages/client/LICENSE', 'utf8')).to.equal(readFileSync('LICENSE', 'utf8'))
    expect(manifest.license).to.equal('MIT')
    const { dependencies } = JSON.parse(readFileSync('package.json', 'utf8'))
    expect(manifest.dependencies).to.deep.equal({ undici: dependencies.undici })
    expect(manifest).to.not.have.any.keys('peerDependencies', 'optionalDependencies', 'devDependencies')
  })

  it('loads as ES modules and with require', () => {
    const names = Object.keys(manifest.exports).map(path => path.replace('.', 'latchkey-client'))
    const modules = JSON.stringify(names.filter(name => !name.endsWith('.json')))
    const check = `for (const { latchkey } of loaded) if (typeof latchkey !== 'function') throw new Error('no latchkey')`
    const load = {
      'load.mjs': `const loaded = await Promise.all(${modules}.map(name => import(name))); ${check}`,
      'load.cjs': `const loaded = ${modules}.map(name => require(name)); ${check}`,
    }
    for (const [file, source] of Object.entries(load)) {
      writeFileSync(join(service, file), source)
      for (const node of [process.execPath, node22 ?? process.execPath]) {
        const { status, stderr } = spawnSync(node, [file], { cwd: service, encoding: 'utf8', env: {} })
        // Node 22 reports that require() of an ES module is experimental; later versions do not.
        expect(stderr.replace(/^\(node:.*\n(\(Use .*\n)?/gm, '')).to.equal('')
        expect(status).to.equal(0)
      }
    }
  })

  it('has types for strict TypeScript, which know what a route behind the guard gets', () => {
    // @types/node is what a TypeScript user of Node.js installs anyway, and the other two the types of Koa and Express.
    for (const types of ['node', 'koa', 'express']) link(service, `@types/${types}`)
    const compilerOptions = {
      ...{ module: 'nodenext', target: 'es2024', types: ['node'], strict: true, exactOptionalPropertyTypes: true },
      ...{ noUncheckedIndexedAccess: true, rootDir: '.', outDir: 'built' },
    }
    writeFileSync(join(service, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['*.ts'] }))
    const wrong = [
      `import express from 'express'`,
      `import { Hono } from 'hono'`,
      `import { latchkey as forExpress } from 'latchkey-client/express'`,
      `import { latchkey as forHono } from 'latchkey-client/hono'`,
      `express().get('/', forExpress().requireToken(), (req, res) => void res.send(req.auth.nonsense))`,
      `new Hono().get('/', forHono().requireToken(), c => c.text(c.var.auth.username ?? c.var.auth.nonsense))`,
      `forExpress({ deadlineMS: 5 })`,
      `express().get('/', forExpress().requireToken(), ({ auth }, res) => void res.json([auth.keyName, auth.actor?.sub]))`,
      `express().get('/', forExpress().requireToken(), (req, res) => void res.send(req.auth.actor.sub))`,
    ]
    writeFileSync(join(service, 'wrong.ts'), wrong.join('\n'))
    const tsc = spawnSync(join(process.cwd(), 'node_modules/.bin/tsc'), { cwd: service, encoding: 'utf8' })
    rmSync(join(service, 'wrong.ts'))
    // The types of Koa itself need packages that are not linked here.
    const problems = tsc.stdout.split('\n').filter(line => /error TS/.test(line) && !/@types\/koa/.test(line))
    expect(problems.map(line => line.replace(/,.*(error TS\d+).*/, ' $1'))).to.deep.equal([
      'wrong.ts(5 error TS2339',
      'wrong.ts(6 error TS2339',
      'wrong.ts(7 error TS2561',
      'wrong.ts(9 error TS18047',
    ])
  })

  for (const [version, node] of [
    ['this Node.js', process.execPath],
    ['Node.js 22', node22],
  ] as const) {
    for (const framework of frameworks) {
      it(`protects a ${framework} service in plain JavaScript on ${version}`, async function () {
        if (node === null) return this.skip()
        auth.reset()
        const url = await start(node, framework, auth.url)
        const get = (headers: Record<string, string>) => fetch(`${url}/data`, { headers })
        const served = await get({ authorization: 'Bearer good', 'x-request-id': 'mine' })
        expect(served.status).to.equal(200)
        expect(await served.json()).to.deep.equal({ data: 'Hello, good!' })
        expect(served.headers.get('server-timing')).to.match(/^auth;dur=/)
        expect(served.headers.get('cache-control')).to.equal('no-store')
        if (framework !== 'fastify') expect(served.headers.get('x-request-id')).to.equal('mine')
        const refused = await get({ token: 'bad' })
        expect(refused.status).to.equal(401)
        expect(refused.headers.get('content-type')).to.match(/^application\/problem\+json/)
        expect(refused.headers.get('www-authenticate')).to.include('error="invalid_token"')
        auth.behave(call => call.reply({ status: 500 }))
        const unavailable = await get({ token: 'good' })
        expect(unavailable.status).to.equal(503)
        expect(unavailable.headers.get('retry-after')).to.equal('1')
      })
    }
  }
})
