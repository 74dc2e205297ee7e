// Reads the arguments of a program that has several commands. Answers --help; explains wrong usage and exits with code 2.
import { parseArgs } from 'node:util'
import { refuseUsage } from '../arguments.ts'
import { escaped, printable } from './text.ts'

/** One of several commands in one program. */
export interface Command {
  /** The arguments. */
  takes: string[]
  /** The names of options, each with a value if its name ends in `=`. */
  options: string[]
  run(argument: string, second: string): Promise<void>
}

/** Finds the command and reads its arguments. Exits for `--help`, and for wrong usage. */
export function parseCommand(usage: string, commands: Record<string, Command>, [name = '', ...args]: string[]) {
  if (name === '--help' || args.includes('--help')) {
    console.log(usage)
    process.exit(0)
  }
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined
  if (command === undefined) {
    return refuseUsage(usage, name === '' ? 'A command is missing.' : `There is no command ${escaped(name)}.`)
  }
  const known = Object.fromEntries(
    command.options.map(option => [
      option.replace('=', ''),
      { type: option.endsWith('=') ? 'string' : 'boolean' } as const,
    ]),
  )
  let parsed: { values: Record<string, string | boolean | undefined>; positionals: string[] }
  try {
    parsed = parseArgs({ args, options: known, allowPositionals: true })
  } catch (error) {
    return refuseUsage(usage, printable((error as Error).message.replace(/\. .*/s, '.')))
  }
  const { values, positionals } = parsed
  // Do not quote the arguments: one of them may be a password.
  if (positionals.length !== command.takes.length) {
    refuseUsage(usage, `${name} takes ${command.takes.join(' and ') || 'no argument'}.`)
  }
  const isSet = (name: string) => values[name] === true
  const textOf = (name: string) => (typeof values[name] === 'string' ? values[name] : null)
  const [first = '', second = ''] = positionals
  return { command, args: [first, second] as const, isSet, textOf }
}
