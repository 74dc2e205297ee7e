// What every TokenStore must do, in four parts.
import type { TokenStore } from '../../services/auth/stores/ports.ts'
import { tokenStoreAuthorityContract } from './tokenStoreAuthority.ts'
import { tokenStoreEndContract } from './tokenStoreEnd.ts'
import { tokenStoreLateContract } from './tokenStoreLate.ts'
import { tokenStoreUpkeepContract } from './tokenStoreUpkeep.ts'
import { tokenStoreUseContract } from './tokenStoreUse.ts'

export function tokenStoreContract(getStore: () => TokenStore): void {
  tokenStoreUseContract(getStore)
  tokenStoreLateContract(getStore)
  tokenStoreEndContract(getStore)
  tokenStoreAuthorityContract(getStore)
  tokenStoreUpkeepContract(getStore)
}
