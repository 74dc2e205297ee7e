// Clients that read one file repeatedly, each on its own connection, without decompressing it. Started by
// bench/static.ts: node bench/staticReaders.ts <url> <count>. Reports the number of answers on request.
import http from 'node:http'
import { setPriority } from 'node:os'

const [url = '', count = '60'] = process.argv.slice(2)
// The readers simulate other machines, so they must not take processor time from the measured servers.
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
