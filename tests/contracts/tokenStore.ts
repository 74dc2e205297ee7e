// What every TokenStore must do, in six parts.
import type { TokenStore } from '../../services/auth/stores/tokenPort.ts'
import { tokenStoreAuthorityContract } from './tokenStoreAuthority.ts'
import { tokenStoreDelegationContract } from './tokenStoreDelegation.ts'
import { tokenStoreEndContract } from './tokenStoreEnd.ts'
import { tokenStoreLateContract } from './tokenStoreLate.ts'
import { tokenStoreLimitsContract } from './tokenStoreLimits.ts'
import { tokenStoreUpkeepContract } from './tokenStoreUpkeep.ts'
import { tokenStoreUseContract } from './tokenStoreUse.ts'

export function tokenStoreContract(getStore: () => TokenStore): void {
  tokenStoreUseContract(getStore)
  tokenStoreLateContract(getStore)
  tokenStoreEndContract(getStore)
  tokenStoreAuthorityContract(getStore)
  tokenStoreLimitsContract(getStore)
  tokenStoreDelegationContract(getStore)
  tokenStoreUpkeepContract(getStore)
}
