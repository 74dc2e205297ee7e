// Replaces Auth's stores with the same stores and the planted defect.
import * as real from '../../services/auth/stores/index.ts'
import { plantedDefect, withDefect } from '../defects.ts'

export * from '../../services/auth/stores/index.ts'

export const openTokenStore: typeof real.openTokenStore = async (...args) =>
  withDefect(await real.openTokenStore(...args), plantedDefect().tokenStore)

export const openUserStore: typeof real.openUserStore = async (...args) =>
  withDefect(await real.openUserStore(...args), plantedDefect().userStore)
