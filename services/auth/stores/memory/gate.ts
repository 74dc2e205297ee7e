// Makes every call of a closed store reject.

export function createGate() {
  let closed = false
  return {
    check(): void {
      if (closed) throw new Error('the store is closed')
    },
    async close(): Promise<void> {
      closed = true
    },
  }
}
