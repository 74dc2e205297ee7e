// The settings of both services as data, in the groups that .env.example and docs/configuration.md show.
import type { z } from 'zod'
import { authSettings } from '../services/auth/config.ts'
import { clearSetting } from '../services/auth/dialects/olderNames.ts'
import { lifeSettings } from '../services/auth/dialects/settings.ts'
import { businessSettings } from '../services/business/config.ts'
import { commonSettings } from '../shared/config/serviceSettings.ts'
import { metaOf, type SettingMeta } from '../shared/config/settings.ts'

export interface Setting extends SettingMeta {
  name: string
  /** The default of the schema as an operator would write it, never a secret; null if the setting has no default. */
  byDefault: string | null
}

type Schemas = Record<string, z.ZodType>

/** Group title -> its settings, each setting in one group only. */
export function settingGroups(): [string, Setting[]][] {
  const groups: [string, Schemas][] = [
    ['Both services', commonSettings],
    ['Auth', without(authSettings, commonSettings)],
    ['Auth, for the dialects that DIALECTS opens', Object.assign({}, ...Object.values(lifeSettings), clearSetting)],
    ['Business', without(businessSettings, commonSettings)],
  ]
  return groups.map(([title, schemas]) => [title, Object.entries(schemas).map(readSetting)])
}

function without(schemas: Schemas, others: Schemas): Schemas {
  return Object.fromEntries(Object.entries(schemas).filter(([name]) => !(name in others)))
}

function readSetting([name, schema]: [string, z.ZodType]): Setting {
  const { data } = schema.safeParse(undefined)
  return { ...metaOf(schema), name, byDefault: data === undefined ? null : String(data) }
}
