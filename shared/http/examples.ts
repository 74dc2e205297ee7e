// Example bodies for the OpenAPI documents, made from the schemas that check the bodies and from one value for each name of a member.

/** What a service says about its examples. */
export interface Examples {
  /** A value for each member, by its name. `examples` in the `meta` of its schema take precedence. */
  members: Record<string, unknown>
  /** Whole request bodies by operationId, for requests that may not have all members at once. */
  bodies: Record<string, unknown>
}

/** The part of JSON Schema that the schemas of bodies use. */
export interface JsonSchema {
  examples?: unknown[]
  $ref?: string
  const?: unknown
  enum?: unknown[]
  anyOf?: JsonSchema[]
  type?: string
  properties?: Record<string, JsonSchema>
  items?: JsonSchema
}

/** An example for a schema with the members of `members`. `schemas` has what its references name. */
export function exampleOf(
  schema: JsonSchema,
  members: Record<string, unknown>,
  schemas: Record<string, object>,
): unknown {
  const { $ref, anyOf, properties, items, type } = schema
  if ($ref !== undefined) return exampleOf(schemas[$ref.split('/').at(-1) as string] as JsonSchema, members, schemas)
  if (schema.examples !== undefined) return schema.examples[0]
  if (schema.const !== undefined) return schema.const
  if (schema.enum !== undefined) return schema.enum[0]
  if (anyOf !== undefined) return richest(anyOf.map(option => exampleOf(option, members, schemas)))
  if (type === 'array') return items === undefined ? [] : [exampleOf(items, members, schemas)]
  if (type === 'boolean') return false
  if (type !== 'object') return null
  const isChosen = (property: JsonSchema) =>
    property.examples !== undefined || property.const !== undefined || property.enum?.length === 1
  return Object.fromEntries(
    Object.entries(properties ?? {}).map(([name, property]) => [
      name,
      name in members && !isChosen(property) ? members[name] : exampleOf(property, members, schemas),
    ]),
  )
}

/** The one with the most members: `{authenticated: false}` shows less than a verdict. */
function richest(examples: unknown[]): unknown {
  const sizeOf = (example: unknown) =>
    typeof example === 'object' && example !== null ? Object.keys(example).length : 0
  return examples.reduce((best, example) => (sizeOf(example) > sizeOf(best) ? example : best))
}
