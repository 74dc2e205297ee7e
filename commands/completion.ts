// latchkey completion: a script that completes commands and options in bash, zsh or fish, written from the commands themselves.
// It starts no process when a key is pressed, and lets the shell complete the names of files.
import { Argument, type Command } from 'commander'
import type { CommandLine } from './commandLine.ts'

interface Candidate {
  text: string
  description: string
}

/** What can follow a command. */
interface Place {
  /** The words that lead here, each with a space before it: '' or ' users add'. */
  path: string
  candidates: Candidate[]
  takesFile: boolean
}

const scripts = { bash: bashScript, zsh: zshScript, fish: fishScript }
type Shell = keyof typeof scripts

const installed = `
  bash   eval "$(latchkey completion bash)"       in ~/.bashrc
  zsh    eval "$(latchkey completion zsh)"        in ~/.zshrc, after compinit
  fish   latchkey completion fish | source        in ~/.config/fish/config.fish`

export function addCompletion(program: CommandLine): void {
  program
    .command('completion')
    .description('print a script that completes commands and options')
    .addArgument(new Argument('<shell>').choices(Object.keys(scripts)))
    .addHelpText('after', installed)
    .runs(
      async () =>
        async ({ args: [shell] }) =>
          console.log(scripts[shell as Shell](placesOf(program, ''))),
    )
}

function placesOf(command: Command, path: string): Place[] {
  const help = command.createHelp()
  const commands = help.visibleCommands(command).filter(child => child.name() !== 'help')
  const options = help.visibleOptions(command).map(({ long, description }) => ({ text: long ?? '', description }))
  const choices = command.registeredArguments.flatMap(({ argChoices = [] }) =>
    argChoices.map(text => ({ text, description: '' })),
  )
  const names = commands.map(child => ({ text: child.name(), description: child.description() }))
  return [
    {
      path,
      candidates: [...names, ...choices, ...options],
      takesFile: command.registeredArguments.some(argument => argument.name() === 'file'),
    },
    ...commands.flatMap(child => placesOf(child, `${path} ${child.name()}`)),
  ]
}

const quoted = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`

/** Only words that lead to a place are part of the path, so options and their values do not count. */
const pathsOf = (places: Place[]) => places.flatMap(({ path }) => (path === '' ? [] : [quoted(path)]))

function bashScript(places: Place[]): string {
  const cases = places.map(
    ({ path, candidates }) => `    ${quoted(path)}) words=${quoted(candidates.map(({ text }) => text).join(' '))} ;;`,
  )
  return `_latchkey() {
  local path= word words=
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "$path $word" in ${pathsOf(places).join(' | ')}) path+=" $word" ;; esac
  done
  case "$path" in
${cases.join('\n')}
  esac
  COMPREPLY=($(compgen -W "$words" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _latchkey latchkey`
}

function zshScript(places: Place[]): string {
  const cases = places.map(({ path, candidates }) => {
    const described = candidates.map(({ text, description }) => quoted(`${text}:${description}`))
    return `    ${quoted(path)}) candidates=(${described.join(' ')}) ;;`
  })
  return `#compdef latchkey
_latchkey() {
  local place= word
  local -a candidates
  for word in "\${(@)words[2,CURRENT-1]}"; do
    case "$place $word" in ${pathsOf(places).join(' | ')}) place+=" $word" ;; esac
  done
  case "$place" in
${cases.join('\n')}
  esac
  _describe latchkey candidates || _files
}
compdef _latchkey latchkey`
}

function fishScript(places: Place[]): string {
  const lines = places.flatMap(({ path, candidates, takesFile }) => {
    const here = `complete -c latchkey -n "test (__latchkey_place) = ${fishQuoted(path)}"`
    return [
      ...(takesFile ? [`${here} -F`] : []),
      ...candidates.map(({ text, description }) => {
        const shown = description === '' ? '' : ` -d ${fishQuoted(description)}`
        return `${here} -a ${fishQuoted(text)}${shown}`
      }),
    ]
  })
  return `function __latchkey_place
  set -l place ''
  for word in (commandline -opc)[2..-1]
    contains -- "$place $word" ${pathsOf(places).join(' ')}; and set place "$place $word"
  end
  echo "$place"
end
complete -c latchkey -f
${lines.join('\n')}`
}

function fishQuoted(text: string): string {
  return `'${text.replace(/['\\]/g, '\\$&')}'`
}
