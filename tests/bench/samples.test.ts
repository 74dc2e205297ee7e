// What npm run bench:profile reads from the output of perf and strace.
import { expect } from 'chai'
import { profileTables } from '../../bench/profileTable.ts'
import { readCounts, readSamples } from '../../bench/samples.ts'

const kernel = (symbol: string) => `\tffffffff8225fd19 ${symbol} ([kernel.kallsyms])`
const native = (symbol: string) => `\t         1628e0c ${symbol} (/usr/bin/node)`
const libc = (symbol: string) => `\t           f838f ${symbol} (/usr/lib/x86_64-linux-gnu/libc.so.6)`
const js = (symbol: string) => `\t    7ff3d4291373 JS:${symbol} (/tmp/perf-1.map)`
/** `lines`: the innermost function first. */
const sample = (thread: string, ...lines: string[]) => `${[`${thread} `, ...lines].join('\n')}\n\n`

describe('a profile', () => {
  const groupOf = (...lines: string[]) =>
    Object.keys(readSamples(sample('MainThread', ...lines), '/repo').groups).join()
  const touch = js("*'touch file:///repo/services/auth/stores/memory/tokenStore.ts:41:16")
  const end = js("*'end node:_http_outgoing:1143:45")

  it('counts the kernel, and entering it, as the system call that was made', () => {
    const write = [kernel('tcp_ack'), kernel('do_syscall_64'), libc('__GI___libc_write'), native('uv__write'), end]
    expect(groupOf(...write)).to.equal('system call: write')
    expect(groupOf(libc('read'), native('uv__read'))).to.equal('system call: read')
    expect(groupOf(kernel('do_syscall_64'), libc('__getpid'))).to.equal('system call: others')
    expect(groupOf(kernel('exc_page_fault'), libc('malloc'), end)).to.equal('kernel: page faults, interrupts')
  })

  it('counts native code as the JavaScript that called it', () => {
    expect(groupOf(native('Builtins_LoadIC'), touch, end)).to.equal('Latchkey: services/')
    expect(groupOf(libc('malloc'), native('v8::internal::Factory::New'), end, touch)).to.match(/^JavaScript of Node/)
    expect(groupOf(native('llhttp__internal__run'), native('uv_run'))).to.match(/^native code/)
    const collect = native('v8::internal::Heap::CollectGarbage')
    expect(groupOf(native('v8::internal::Scavenger::Process'), collect, touch)).to.equal('garbage collection')
  })

  it('names the package, whatever its file is called', () => {
    expect(groupOf(js("*'set body /repo/node_modules/koa/lib/response.js:148:12"))).to.equal('package: koa')
    expect(groupOf(js('+observe /repo/node_modules/@prometheus-io/client/lib/histogram.js:237:17'))).to.equal(
      'package: @prometheus-io',
    )
    expect(groupOf(js("*' /repo/node_modules/debug/src/index.js:3:17"))).to.equal('package: others')
  })

  it('gives the shares of all samples, the largest first', () => {
    const text = sample('MainThread', touch) + sample('V8Worker', libc('futex')) + sample('MainThread', touch, end)
    const { groups, functions } = readSamples(text + sample('MainThread', end), '/repo')
    expect(Object.values(groups)).to.deep.equal([0.5, 0.25, 0.25])
    expect(functions).to.deep.equal({
      'touch, services/auth/stores/memory/tokenStore.ts': 0.5,
      'end, node:_http_outgoing': 0.25,
    })
  })

  it('reads how often each system call was made', () => {
    const text = `% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 80.73    4.780655        3624      1319       142 futex
  4.20    0.248823          10     24103           write
------ ----------- ----------- --------- --------- ----------------
100.00    5.922035         112     52766       142 total
`
    expect(readCounts(text)).to.deep.equal({ futex: 1319, write: 24103 })
  })

  it('is shown without what is negligible under every load', () => {
    const load = {
      groups: { a: 0.99, b: 0.009 },
      functions: { 'f, x.ts': 0.5 },
      callsPerRequest: { read: 1, brk: 0.001 },
    }
    const text = profileTables({ machine: '', date: '', command: '', results: { Auth: load } })
    expect(text).to.include('| a | 99.0 |').and.include('| read | 1.00 |').and.include('* Auth: f, x.ts 50.0 %')
    expect(text).not.to.match(/\| b |brk/)
  })
})
