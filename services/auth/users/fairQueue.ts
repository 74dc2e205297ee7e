// A bounded queue whose jobs each belong to two parties: a network and an account. Hides which job is next and which is
// refused, so that no party can keep the others waiting or fill the queue.

export interface Party {
  network: string
  account: string
}

export interface FairQueueOptions {
  /** Jobs that can wait. */
  maxWaiting: number
  /** Jobs of one account that can wait or run, whatever networks they come from. */
  maxPerAccount: number
}

export interface FairQueue<Job extends Party> {
  /**
   * Adds a job. If there is no room, removes and returns the job that has to give way: the newest one of the largest party,
   * possibly this job itself. Null if there is room.
   */
  add(job: Job): Job | null
  /** Takes the job to run next; null if none waits. Networks take turns, and so do accounts. Call `done` after the job. */
  next(): Job | null
  done(job: Job): void
  /** Removes a job that waits. False if it is not waiting. */
  remove(job: Job): boolean
  /** Jobs that wait. */
  waiting(): number
}

interface Standing {
  /** Jobs that wait or run. */
  jobs: number
  /** The turn in which the party was served last; for a new party, the turn in which it arrived. */
  turn: number
}

export function createFairQueue<Job extends Party>({ maxWaiting, maxPerAccount }: FairQueueOptions): FairQueue<Job> {
  const waiting: Job[] = [] // in order of arrival
  // Holds only parties that have a job, so that their number is bounded too.
  const networks = new Map<string, Standing>()
  const accounts = new Map<string, Standing>()
  let turn = 0

  function standingsOf({ network, account }: Party): [Standing, Standing] {
    return [standingIn(networks, network), standingIn(accounts, account)]
  }

  function standingIn(standings: Map<string, Standing>, name: string): Standing {
    const standing = standings.get(name) ?? { jobs: 0, turn }
    standings.set(name, standing)
    return standing
  }

  function leave(job: Job): void {
    for (const standing of standingsOf(job)) standing.jobs--
    if (networks.get(job.network)?.jobs === 0) networks.delete(job.network)
    if (accounts.get(job.account)?.jobs === 0) accounts.delete(job.account)
  }

  /** Compares the larger party of each job first, so that using many accounts gives a network no advantage. */
  function isHeavier(job: Job, other: Job): boolean {
    return compare(...jobsOf(job), ...jobsOf(other)) > 0
  }

  const jobsOf = (job: Job) => inOrder(standingsOf(job).map(({ jobs }) => jobs))
  const turnsOf = (job: Job) => inOrder(standingsOf(job).map(({ turn }) => turn))

  /** The newest job of the largest party among those that wait. */
  function heaviest(candidates: Job[]): Job | null {
    return candidates.reduce<Job | null>((found, job) => (found && isHeavier(found, job) ? found : job), null)
  }

  function remove(job: Job): boolean {
    const at = waiting.indexOf(job)
    if (at < 0) return false
    waiting.splice(at, 1)
    leave(job)
    return true
  }

  return {
    add(job) {
      const [network, account] = standingsOf(job)
      network.jobs++
      account.jobs++
      waiting.push(job)
      let refused: Job | null = null
      if (account.jobs > maxPerAccount) refused = heaviest(waiting.filter(other => other.account === job.account))
      else if (waiting.length > maxWaiting) refused = heaviest(waiting)
      if (refused !== null) remove(refused)
      return refused
    },

    next() {
      if (waiting.length === 0) return null
      // The job whose network and account were both served longest ago; among equals, the one that arrived first.
      const job = waiting.reduce((found, other) => (compare(...turnsOf(other), ...turnsOf(found)) < 0 ? other : found))
      waiting.splice(waiting.indexOf(job), 1)
      turn++
      for (const standing of standingsOf(job)) standing.turn = turn
      return job
    },

    done: leave,
    remove,
    waiting: () => waiting.length,
  }
}

/** The larger number first. */
function inOrder([a = 0, b = 0]: number[]): [number, number] {
  return a > b ? [a, b] : [b, a]
}

function compare(a: number, a2: number, b: number, b2: number): number {
  return a === b ? a2 - b2 : a - b
}
