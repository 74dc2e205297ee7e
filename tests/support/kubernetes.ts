// Renders the Kubernetes templates with the real kubectl and helm.
import { spawnSync } from 'node:child_process'
import { delimiter } from 'node:path'
import { parseAllDocuments } from 'yaml'

export interface KubernetesObject {
  apiVersion: string
  kind: string
  metadata: { name: string; namespace?: string; labels?: Record<string, string> }
  // The schemas of Kubernetes describe the rest; a test checks every object against them.
  spec: Record<string, unknown>
}

export interface Container {
  name: string
  image: string
  env: { name: string; value: string }[]
  ports: { name: string; containerPort: number }[]
}

/** The folder to which .ci/run installs both, after the programs that the machine has. */
const env = { ...process.env, PATH: [process.env['PATH'], `${process.cwd()}/.ci/kubernetes/bin`].join(delimiter) }

export const hasKubernetesTools = ['helm', 'kubectl'].every(
  name => spawnSync(name, ['--help'], { env }).error === undefined,
)

/** Runs `helm` or `kubectl` without a cluster. */
export function runTool(name: 'helm' | 'kubectl', ...args: string[]) {
  return spawnSync(name, args, { env, encoding: 'utf8' })
}

/** The objects of an overlay in deploy/kubernetes/overlays. */
export const renderOverlay = (name: string) =>
  read(runTool('kubectl', 'kustomize', `deploy/kubernetes/overlays/${name}`))

/** The objects of the chart for a release called latchkey, with `--set` options. */
export const renderChart = (...values: string[]) => read(runTool('helm', ...chartArguments(values)))

export function chartArguments(values: string[]): string[] {
  const options = values.flatMap(value => ['--set', value])
  return ['template', 'latchkey', 'deploy/helm/latchkey', '--namespace', 'latchkey', ...options]
}

function read({ status, stdout, stderr }: ReturnType<typeof runTool>): KubernetesObject[] {
  if (status !== 0) throw new Error(stderr)
  return parseAllDocuments(stdout).map(document => document.toJS() as KubernetesObject)
}
