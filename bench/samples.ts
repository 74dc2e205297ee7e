// Where a process spends its time, from the samples of perf, and which system calls it makes, from the counts of strace.
// Hides what the two print.

export interface Profile {
  /** The name of a group -> its share of all samples. The shares add up to 1. */
  groups: Record<string, number>
  /** The dearest functions of JavaScript -> their shares, with the native code that they call, but without system calls and collection. */
  functions: Record<string, number>
}

interface JsFrame {
  name: string
  /** Relative to the folder of the repository. */
  file: string
}

const helpers = 'helper threads of V8: collection, compiler'
const collection = 'garbage collection'
const native = 'native code of Node and V8 outside JavaScript: libuv, llhttp'
const faults = 'kernel: page faults, interrupts'
const nodeJs = 'JavaScript of Node: http, streams, timers'

const functionsKept = 40
const packageGroups = ['undici', 'koa', 'zod', '@prometheus-io']
const ownGroups = ['shared', 'services', 'packages']

/**
 * Takes what `perf script -F comm,ip,sym,dso` prints for a process that was started with `--perf-basic-prof`. `folder` is
 * that of the repository.
 */
export function readSamples(text: string, folder: string): Profile {
  const groups = new Map<string, number>()
  const functions = new Map<string, number>()
  const samples = text.split(/\n\n+/).filter(sample => sample.includes('\n'))
  const add = (shares: Map<string, number>, name: string) =>
    shares.set(name, (shares.get(name) ?? 0) + 1 / samples.length)
  for (const sample of samples) {
    const [thread = '', ...lines] = sample.split('\n')
    const symbols = lines.map(line => line.trim().replace(/^[\da-f]+ /, '')) // the innermost function first
    const frame = jsFrameOf(symbols, folder)
    const group = groupOf(thread.trim(), symbols, frame)
    add(groups, group)
    if (frame !== null && isJs(group)) add(functions, `${frame.name || '(anonymous)'}, ${frame.file}`)
  }
  const kept = Object.entries(sorted(functions)).slice(0, functionsKept)
  return { groups: sorted(groups), functions: Object.fromEntries(kept) }
}

function groupOf(thread: string, symbols: string[], frame: JsFrame | null): string {
  if (!/^(MainThread|node)$/.test(thread)) return helpers
  const call = systemCallOf(symbols)
  if (call !== null) return `system call: ${call}`
  if (symbols[0]?.includes('[kernel.kallsyms]')) return faults
  if (symbols.some(symbol => /v8::internal::Heap::CollectGarbage/.test(symbol))) return collection
  if (frame === null) return native
  if (frame.file.startsWith('node:')) return nodeJs
  const [, name] = /node_modules\/(?:\.\w+\/)?(@?[\w-]+)/.exec(frame.file) ?? []
  if (name !== undefined) return `package: ${packageGroups.includes(name) ? name : 'others'}`
  const [root = ''] = frame.file.split('/')
  return ownGroups.includes(root) ? `Latchkey: ${root}/` : 'package: others' // code that zod compiles has no file
}

const isJs = (group: string) => group === nodeJs || /^(package|Latchkey): /.test(group)

/** The kernel's time belongs to the function of libc that made the call, and so do entering and leaving the kernel. */
function systemCallOf(symbols: string[]): string | null {
  const outside = symbols.find(symbol => !symbol.includes('[kernel.kallsyms]')) ?? ''
  const isInKernel = symbols.some(symbol => /^(do_syscall_64|entry_SYSCALL_64)/.test(symbol))
  const [, name] =
    /^(?:__GI_)?(?:__libc_|___libc_|__)?(write|writev|read|epoll_pwait|futex|syscall)\b.*libc/.exec(outside) ?? []
  if (name !== undefined && (isInKernel || outside === symbols[0])) return name
  return isInKernel ? 'others' : null
}

/** The innermost function of JavaScript that has a file. */
function jsFrameOf(symbols: string[], folder: string): JsFrame | null {
  for (const symbol of symbols) {
    // For example `JS:*'touch file:///…/tokenStore.ts:41:16 (/tmp/perf-1.map)`. Before the name: how V8 compiled it.
    const [, name, file] = /^JS:[^\w\s(]*(.*?) ((?:file:\/\/|node:|\/)?\S*?):\d+:\d+ \(/.exec(symbol) ?? []
    if (name !== undefined && file !== undefined) {
      return { name, file: file.replace(/^file:\/\//, '').replace(`${folder}/`, '') }
    }
  }
  return null
}

function sorted(shares: Map<string, number>): Record<string, number> {
  return Object.fromEntries([...shares].sort(([, a], [, b]) => b - a))
}

/** What `strace -c` wrote: a system call -> how often it was made. */
export function readCounts(text: string): Record<string, number> {
  const rows = text.matchAll(/^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?([a-z]\w+)$/gm)
  return Object.fromEntries(
    Array.from(rows, ([, count, name]): [string, number] => [`${name}`, Number(count)]).filter(
      ([name]) => name !== 'total',
    ),
  )
}
