// How changes wait for the standbys of PostgreSQL: which commits they share, and what another server's confirmation is worth.
import { expect } from 'chai'
import type { BorrowedConnection } from '../../../services/auth/stores/sql/postgresPool.ts'
import { createStandbys } from '../../../services/auth/stores/sql/standbys.ts'
import { toMessage } from '../../support/storeFixtures.ts'

describe('the confirmation by standbys', () => {
  /** Connections to the server `serverId`, whose commits end when the test says so. */
  function openFake(serverId: string) {
    const commits: (() => void)[] = []
    const connection: BorrowedConnection = {
      serverId,
      commitLevel: 'on',
      processId: 1,
      query: async () => [],
      change: async () => 0,
      script: () => new Promise<void>(resolve => commits.push(resolve)),
      release() {},
    }
    return { standbys: createStandbys(async () => connection), commits }
  }

  const turn = () => new Promise<void>(resolve => setImmediate(resolve))

  it('is not accepted from another server than the one that has the change', async () => {
    const { standbys, commits } = openFake('new')
    const answers = ['old', 'new'].map(id => standbys.confirm(id).then(() => 'confirmed', toMessage))
    for (let i = 0; i < 2; i++) {
      await turn()
      commits[i]?.()
    }
    expect(await Promise.all(answers)).to.deep.equal([
      'another server has taken over, which may lack the change',
      'confirmed',
    ])
  })

  it('of changes that arrive together takes one commit, which begins after all of them', async () => {
    const { standbys, commits } = openFake('one')
    const confirmed: number[] = []
    const changes = [0, 1, 2].map(n => standbys.confirm('one').then(() => confirmed.push(n)))
    await turn()
    expect(commits).to.have.lengthOf(1)
    commits[0]?.()
    await turn()
    expect(confirmed).to.deep.equal([0])
    expect(commits).to.have.lengthOf(2)
    commits[1]?.()
    await Promise.all(changes)
  })
})
