// The global names that /docs/documents.js and the two libraries define.
declare const latchkeyDocuments: readonly { name: string; url: string }[]

declare const SwaggerUIBundle: {
  (options: Record<string, unknown>): void
  presets: { apis: unknown }
}
declare const SwaggerUIStandalonePreset: unknown

declare const Redoc: {
  init(url: string, options: Record<string, unknown>, element: Element): void
}
