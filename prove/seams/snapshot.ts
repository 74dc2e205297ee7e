// Replaces the snapshot-writing memory store with the same store and the planted defect.
import * as real from '../../services/auth/stores/memory/snapshot.ts'
import { plantedDefect, withDefect } from '../defects.ts'

export * from '../../services/auth/stores/memory/snapshot.ts'

export const openSnapshotStore: typeof real.openSnapshotStore = async options => {
  const opened = await real.openSnapshotStore(options)
  return { ...opened, store: withDefect(opened.store, plantedDefect().tokenStore) }
}
