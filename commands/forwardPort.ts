// Passes the bytes of each connection on to another host: how the operator's console of a container without published ports is
// reached from the machine.
import { connect, createServer, type Socket } from 'node:net'
import { pipeline } from 'node:stream'
import { refuseUsage } from './arguments.ts'

const usage = `Usage: node commands/forwardPort.ts <port> <host>:<port>

Listens on the port, on all addresses, and passes each connection on to the host.`

const [from = '', to = '', ...others] = process.argv.slice(2)
if (from === '--help') {
  console.log(usage)
  process.exit(0)
}
const [, host, port] = /^(.+):(\d+)$/.exec(to) ?? []
if (!/^\d+$/.test(from) || host === undefined || others.length > 0) {
  refuseUsage(
    usage,
    `Expected a port and a host with its port; got ${JSON.stringify(process.argv.slice(2).join(' '))}.`,
  )
}

const open = new Set<Socket>()
const server = createServer(client => {
  const target = connect(Number(port), host)
  for (const socket of [client, target]) {
    open.add(socket)
    socket.once('close', () => open.delete(socket))
  }
  // One that breaks takes the other with it, and both ends notice by themselves.
  pipeline(client, target, () => {})
  pipeline(target, client, () => {})
})
server.on('error', error => {
  console.error(error.message)
  process.exit(1)
})
server.listen(Number(from), '0.0.0.0', () => console.log(`forwards port ${from} to ${to}`))
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => {
    server.close()
    for (const socket of open) socket.destroy()
  })
}
