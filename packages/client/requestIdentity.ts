// Which ids and trace contexts of a request are taken over, by the client and by the listeners of both services.

// Version 00 of https://www.w3.org/TR/trace-context/#traceparent-header
const traceparentFormat = /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/

const requestIdFormat = /^[A-Za-z0-9._-]{1,64}$/

/** Whether the value of `traceparent` is well-formed; other values are ignored. */
export function isTraceparent(value: unknown): value is string {
  return typeof value === 'string' && traceparentFormat.test(value)
}

/** Whether the value of `X-Request-Id` is well-formed; otherwise the request gets a new id. */
export function isRequestId(value: unknown): value is string {
  return typeof value === 'string' && requestIdFormat.test(value)
}
