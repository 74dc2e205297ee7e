// Clients that read one file again and again, each on a connection of its own, without decompressing it. Started by
// bench/static.ts: node bench/staticReaders.ts <url> <count>. Counts the answers that it has read, and says so when asked.
import http from 'node:http'
import { setPriority } from 'node:os'

const [url = '', count = '60'] = process.argv.slice(2)
// The readers stand for other machines: they may not take CPU time from the servers that are measured.
setPriority(19)
const agent = new http.Agent({ keepAlive: true, maxSockets: Number(count) })
let answers = 0

function read(): void {
  http
    .get(url, { agent }, answer => {
      answer.resume()
      answer.once('end', () => {
        answers++
        read()
      })
    })
    .once('error', error => {
      console.error(`a reader failed: ${error.message}`)
      process.exit(1)
    })
}

for (let i = 0; i < Number(count); i++) read()
process.on('message', () => process.send?.({ answers }))
