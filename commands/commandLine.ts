// The command line of `latchkey`, on commander. Hides how usage errors are worded and which exit codes they have.
import { Command, CommanderError, type ErrorOptions, type HelpContext } from 'commander'
import { printable } from './text.ts'

/** What the operator typed after the name of a command. */
export interface Invocation {
  /** The arguments, in the order in which they are declared. */
  args: string[]
  isSet(option: string): boolean
  /** Null if the option was not given. */
  textOf(option: string): string | null
  /** Ends the process with exit code 2. */
  refuse(problem: string): never
}

export type Action = (invocation: Invocation) => Promise<void>

export class CommandLine extends Command {
  constructor(name?: string) {
    super(name)
    this.exitOverride().helpOption('-h, --help', 'show this').helpCommand(false).showSuggestionAfterError()
    this.configureHelp({ sortSubcommands: false }).configureOutput({
      writeOut: text => console.log(text.trimEnd()),
      writeErr: text => console.error(text.trimEnd()),
      outputError: (text, write) => write(text),
    })
  }

  override createCommand(name?: string): CommandLine {
    return new CommandLine(name)
  }

  /** Loads the code of the command only when it runs, so that help and completion are printed at once. */
  runs(load: () => Promise<Action>): this {
    return this.action(async () => {
      const run = await load()
      await run({
        args: this.processedArgs.flat().filter(argument => argument !== undefined),
        isSet: option => this.getOptionValue(option) === true,
        textOf: option => this.getOptionValue(option) ?? null,
        refuse: problem => this.error(problem),
      })
    })
  }

  /** commander prints the help for a missing command without naming the problem. */
  override help(context?: HelpContext | ((text: string) => string)): never {
    if (typeof context === 'object' && context.error) return this.error('A command is missing.')
    return super.help()
  }

  override error(message: string, { code = '' }: ErrorOptions = {}): never {
    const problem = printable(this.describe(message, code))
    const usage = this.createHelp().commandUsage(this)
    return super.error(`${problem}\n\nUsage: ${usage}\n--help explains it.`, { exitCode: 2 })
  }

  /** Quotes no value and no surplus argument, because it may be a password. */
  private describe(message: string, code: string): string {
    const suggestion = /\n\(Did you mean (.*)\?\)$/.exec(message)?.[1]
    const advice = suggestion === undefined ? '' : ` Did you mean ${suggestion}?`
    switch (code) {
      case 'commander.unknownOption':
        return `Unknown option '${/'([^=']*)/.exec(message)?.[1]}'.${advice}`
      case 'commander.unknownCommand':
        return `There is no command ${this.args[0]}.${advice}`
      case 'commander.missingArgument':
      case 'commander.excessArguments':
        return `${this.name()} takes ${this.registeredArguments.map(nameOf).join(' and ') || 'no argument'}.`
      case '':
        return message
      default: {
        const text = message.replace(/^error: /, '').replace(/\.$/, '')
        return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`
      }
    }
  }
}

const nameOf = (argument: { name(): string; required: boolean }) =>
  argument.required ? `<${argument.name()}>` : `[${argument.name()}]`

/** Runs the program with the arguments of this process. Exit codes: 0 done, 1 not done, 2 wrong usage. */
export async function runCommandLine(program: CommandLine, args = process.argv.slice(2)): Promise<void> {
  try {
    await program.parseAsync(args, { from: 'user' })
  } catch (error) {
    if (error instanceof CommanderError) process.exit(error.exitCode)
    const { describeError } = await import('./errors.ts')
    console.error(describeError(error))
    process.exitCode ||= 1
  }
}
