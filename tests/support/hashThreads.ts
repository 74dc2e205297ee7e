// One thread for all hashes of a test process: starting one for each Auth takes longer than most tests.
import { startHashThreads } from '../../services/auth/users/hashThreads.ts'

export const hashThreads = startHashThreads(1)
