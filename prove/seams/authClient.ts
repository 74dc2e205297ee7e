// Replaces Business's client for Auth with the same client and the planted defect.
import * as real from '../../packages/client/authClient.ts'
import { plantedDefect, withDefect } from '../defects.ts'

export * from '../../packages/client/authClient.ts'

export const openAuthClient: typeof real.openAuthClient = options =>
  withDefect(real.openAuthClient(options), plantedDefect().authClient)
