// deploy/prometheus/rules.yml and the dashboard of Grafana, compared with the metrics of running services.
import { readFileSync } from 'node:fs'
import { parser } from '@prometheus-io/lezer-promql'
import { expect } from 'chai'
import { parse } from 'yaml'
import { post } from '../support/client.ts'
import { adminKey, demo } from '../support/credentials.ts'
import { logIn } from '../support/factories.ts'
import { closeServers, startAuth, startBusiness } from '../support/servers.ts'

interface Rule {
  alert?: string
  record?: string
  expr: string
  for?: string
  labels?: Record<string, string>
  annotations?: Record<string, string>
}

interface Panel {
  id: number
  type: string
  title: string
  gridPos: { h: number; w: number; x: number; y: number }
  datasource?: { type: string; uid: string }
  targets?: { refId: string; expr: string; legendFormat: string; datasource: { uid: string } }[]
}

interface Dashboard {
  uid: string
  title: string
  schemaVersion: number
  templating: { list: { name: string; type: string; definition?: string }[] }
  panels: Panel[]
}

const { groups } = parse(readFileSync('deploy/prometheus/rules.yml', 'utf8')) as {
  groups: { name: string; rules: Rule[] }[]
}
const rules = groups.flatMap(group => group.rules)
const alerts = rules.filter(({ alert }) => alert !== undefined)
const recorded = new Map(rules.flatMap(({ record, expr }) => (record === undefined ? [] : [[record, expr] as const])))
const dashboard = JSON.parse(readFileSync('deploy/grafana/dashboards/latchkey.json', 'utf8')) as Dashboard
const targets = dashboard.panels.flatMap(({ targets = [] }) => targets)

/** With values for Grafana's variables, and without recorded names. */
function promQl(expr: string): string {
  let plain = expr.replaceAll('$__rate_interval', '5m')
  for (const [record, recordedExpr] of recorded) plain = plain.replaceAll(record, `(${recordedExpr})`)
  return plain
}

const everything = [...rules, ...targets].map(({ expr }) => promQl(expr))

interface Selector {
  metric: string
  matchers: { label: string; operator: string; value: string }[]
}

/** The selectors and the labels of `by (…)`; throws if the expression is not PromQL. */
function read(expr: string): { selectors: Selector[]; grouping: string[] } {
  const selectors: Selector[] = []
  const grouping: string[] = []
  parser.parse(expr).iterate({
    enter({ type, node, from, to }) {
      if (type.isError) throw new Error(`not PromQL at ${from}: ${expr}`)
      if (type.name === 'VectorSelector') {
        const metric = node.getChild('Identifier')
        if (!metric) throw new Error(`a selector without a metric: ${expr}`)
        selectors.push({ metric: expr.slice(metric.from, metric.to), matchers: [] })
      }
      if (type.name === 'UnquotedLabelMatcher') {
        const [, label = '', operator = '', value = ''] =
          /^(\w+)\s*(=~|!=|!~|=)\s*"(.*)"$/.exec(expr.slice(from, to)) ?? []
        selectors.at(-1)?.matchers.push({ label, operator, value })
      }
      if (type.name === 'GroupingLabels') grouping.push(...(expr.slice(from, to).match(/\w+/g) ?? []))
    },
  })
  return { selectors, grouping }
}

const ofPrometheus = ['job', 'instance']
/** Only a store that does not answer has these series. */
const notProvoked = ['latchkey_store_duration_seconds_count{outcome="failed"}']

describe('the rules of Prometheus and the dashboard of Grafana', () => {
  /** Name of each series -> its labels -> their values. */
  const shown = new Map<string, Map<string, Set<string>>>()

  before(async () => {
    const auth = await startAuth({ env: { INVALID_TOKEN_LIMIT_PER_ADDRESS: '1' } })
    const business = await startBusiness(auth.internalUrl, { SHADOW_RULES: 'scope:orders:write' })
    const withoutAuth = await startBusiness('http://127.0.0.1:9')
    const token = await logIn(auth.url)
    await post(`${auth.url}/login`, { ...demo, password: 'wrong' })
    for (const { url } of [business, withoutAuth]) await fetch(`${url}/data`, { headers: { token } })
    for (let i = 0; i < 3; i++) await fetch(`${auth.url}/sessions`, { headers: { token: 'dead' } })
    await fetch(`${auth.internalUrl}/tokens/expired`, {
      method: 'DELETE',
      headers: { authorization: `Bearer ${adminKey}` },
    })
    for (const { internalUrl } of [auth, business, withoutAuth]) {
      const page = await (await fetch(`${internalUrl}/metrics`)).text()
      for (const [, name = '', labels = ''] of page.matchAll(/^([a-z_0-9]+)(?:\{(.*)\})? /gm)) {
        const known = shown.get(name) ?? new Map<string, Set<string>>()
        shown.set(name, known)
        for (const [, label = '', value = ''] of labels.matchAll(/(\w+)="([^"]*)"/g)) {
          known.set(label, (known.get(label) ?? new Set()).add(value))
        }
      }
    }
  })
  after(closeServers)

  it('select only metrics, labels and values that the services have', () => {
    for (const expr of everything) {
      const { selectors, grouping } = read(expr)
      for (const { metric, matchers } of selectors) {
        const labels = shown.get(metric)
        if (labels === undefined) throw new Error(`${metric} in ${expr}`)
        for (const { label, operator, value } of matchers) {
          if (ofPrometheus.includes(label)) continue
          expect([...labels.keys()], expr).to.include(label)
          if (operator !== '=' || notProvoked.includes(`${metric}{${label}="${value}"}`)) continue
          expect([...(labels.get(label) ?? [])], `${label} in ${expr}`).to.include(value)
        }
      }
      const labels = selectors.flatMap(({ metric }) => [...(shown.get(metric)?.keys() ?? [])])
      for (const label of grouping) expect([...labels, ...ofPrometheus], expr).to.include(label)
    }
  })

  it('see the first event of a counter that is worth an alert, because it is 0 from the start', () => {
    const single = alerts.filter(({ expr }) => /sum\(increase\(.*\) > 0/.test(expr))
    expect(single).to.have.length.above(2)
    for (const { expr } of single) expect(shown.has(read(expr).selectors[0]?.metric ?? ''), expr).to.equal(true)
  })

  it('show every metric of Latchkey', () => {
    const selected = new Set(everything.flatMap(expr => read(expr).selectors.map(({ metric }) => metric)))
    const family = (name: string) => name.replace(/_(bucket|count|sum)$/, '')
    const families = new Set([...selected].map(family))
    const missing = [...shown.keys()].filter(name => name.startsWith('latchkey_') && !families.has(family(name)))
    expect(missing).to.deep.equal([])
  })

  it('have alerts with a name, a duration, a severity, a summary, and a place in docs/operations.md', () => {
    const text = readFileSync('docs/operations.md', 'utf8')
    expect(new Set(alerts.map(({ alert }) => alert)).size).to.equal(alerts.length)
    for (const { alert = '', for: duration, labels, annotations } of alerts) {
      expect(duration, alert).to.match(/^\d+[sm]$/)
      expect(['critical', 'warning'], alert).to.include(labels?.['severity'])
      expect(annotations?.['summary'], alert).to.match(/^[A-Z{\d]/)
      expect(annotations?.['runbook_url']).to.equal(`docs/operations.md#${alert.toLowerCase()}`)
      expect(text).to.include(`<a id="${alert.toLowerCase()}"></a>\`${alert}\``)
    }
    const documented = [...text.matchAll(/<a id="latchkey\w+"><\/a>`(\w+)`/g)].map(([, name]) => name)
    expect(documented).to.have.members(alerts.map(({ alert }) => alert))
  })

  it('have a dashboard as Grafana reads it: unique ids, panels side by side, and a data source that the user chooses', () => {
    const { uid, title, schemaVersion, templating, panels } = dashboard
    expect({ uid, title, schemaVersion }).to.deep.equal({ uid: 'latchkey', title: 'Latchkey', schemaVersion: 39 })
    expect(templating.list.map(({ name }) => name)).to.deep.equal(['datasource', 'job', 'instance'])
    for (const { definition, type } of templating.list) {
      if (type !== 'query') continue
      const [, selector = ''] = /^label_values\((.*), \w+\)$/.exec(definition ?? '') ?? []
      expect(read(selector).selectors).to.have.length(1)
    }
    expect(new Set(panels.map(({ id }) => id)).size).to.equal(panels.length)
    const cells = new Set<string>()
    for (const { type, title, gridPos, datasource, targets = [] } of panels) {
      expect(['row', 'stat', 'timeseries'], title).to.include(type)
      expect(gridPos.x + gridPos.w, title).to.be.at.most(24)
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          expect(cells.has(`${x},${y}`), `${title} overlaps another panel`).to.equal(false)
          cells.add(`${x},${y}`)
        }
      }
      if (type === 'row') continue
      expect(datasource?.uid).to.match(/^\$\{datasource\}$/)
      expect(targets).to.not.equal([])
      expect(new Set(targets.map(({ refId }) => refId)).size).to.equal(targets.length)
      for (const { expr } of targets) {
        for (const { matchers } of read(promQl(expr)).selectors) {
          expect(matchers.slice(0, 2).map(({ value }) => value)).to.deep.equal(['$job', '$instance'])
        }
      }
    }
  })
})
