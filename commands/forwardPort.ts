// Forwards a port to another host. Makes the operator's view reachable from the machine, although the console's container
// publishes no port.
import { connect, createServer, type Socket } from 'node:net'
import { pipeline } from 'node:stream'
import { refuseUsage } from './arguments.ts'

const usage = `Usage: node commands/forwardPort.ts <port> <host>:<port>

Listens on the port on all addresses and forwards each connection to the host.`

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
  // If one connection breaks, pipeline closes the other, so there is nothing to handle.
  pipeline(client, target, () => {})
  pipeline(target, client, () => {})
})
server.on('error', error => {
  console.error(error.message)
  process.exit(1)
})
server.listen(Number(from), '0.0.0.0', () => console.log(`forwarding port ${from} to ${to}`))
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => {
    server.close()
    for (const socket of open) socket.destroy()
  })
}
