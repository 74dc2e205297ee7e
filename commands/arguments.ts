// The arguments of a program without commands: ./startServer, tools and benchmarks; `latchkey` has commandLine.ts. Needs no package.
// Answers --help; explains wrong usage and exits with code 2.
import { type ParseArgsConfig, parseArgs } from 'node:util'

type Options = NonNullable<ParseArgsConfig['options']>
type Values<T extends Options> = ReturnType<typeof parseArgs<{ options: T }>>['values']

/** The values of `options`; --help is always known. Exits on --help and on unknown arguments. */
export function readArguments<const T extends Options>(usage: string, options: T): Values<T> {
  return readWithPositionals(usage, options, { allowPositionals: false }).values
}

/** The same with positional arguments. */
export function readWithPositionals<const T extends Options>(
  usage: string,
  options: T,
  { allowPositionals = true } = {},
): { values: Values<T>; positionals: string[] } {
  let parsed: { values: Values<T> & { help?: boolean }; positionals: string[] }
  try {
    const known = { ...options, help: { type: 'boolean' } } as const
    parsed = parseArgs({ options: known, allowPositionals }) as typeof parsed
  } catch (error) {
    // Keep the first sentence; the rest is advice about arguments that begin with a dash.
    return refuseUsage(usage, (error as Error).message.replace(/\. .*/s, '.'))
  }
  if (parsed.values.help) {
    console.log(usage)
    process.exit(0)
  }
  return parsed
}

/** Positive whole numbers, separated by commas. */
export function readCounts(usage: string, option: string, text: string): number[] {
  const counts = text.split(',').map(Number)
  if (counts.every(count => Number.isSafeInteger(count) && count > 0)) return counts
  return refuseUsage(usage, `--${option}: expected whole numbers above 0; got ${JSON.stringify(text)}.`)
}

export function readCount(usage: string, option: string, text: string): number {
  const [count, ...others] = readCounts(usage, option, text)
  if (count !== undefined && others.length === 0) return count
  return refuseUsage(usage, `--${option}: expected one whole number above 0; got ${JSON.stringify(text)}.`)
}

export function refuseUsage(usage: string, problem: string): never {
  console.error(`${problem}\n\n${usage}`)
  process.exit(2)
}
