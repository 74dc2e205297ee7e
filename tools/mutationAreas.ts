// The parts of the code that mutation testing changes, each with the files of its tests.

interface Area {
  /** Globs of the sources to change. */
  sources: string[]
  /** Globs of the test files about these sources. Tests in other files may notice more changes, but take more time. */
  tests: string[]
  /** Matches the titles of the tests to run, if the other tests are slow and cover more than this area. */
  titles?: RegExp
}

export const areas: Record<string, Area> = {
  tokens: {
    sources: ['services/auth/tokens/{format,tokens,sweeper}.ts'],
    tests: ['tests/auth/tokens/{tokens,format,sweeper}.test.ts'],
  },
  stores: {
    sources: ['services/auth/stores/memory/*.ts'],
    tests: ['tests/auth/stores/{contracts,memoryUsers,slotIndex,snapshot,snapshotLines}.test.ts'],
  },
  users: {
    sources: ['services/auth/users/{users,directory,credentials,credentialVersions,passwords,passwordRules}.ts'],
    tests: ['tests/auth/users/{passwordRules,passwords}.test.ts', 'tests/auth/routes/users.test.ts'],
  },
  defence: {
    sources: [
      'services/auth/defence/{throttles,attempts,loginAttempts,failures}.ts',
      'shared/counters.ts',
      'shared/invalidTokens.ts',
    ],
    tests: ['tests/auth/defence/{throttles,limits,counters}.test.ts'],
    titles: /the throttles|answer invalid tokens/,
  },
  client: {
    sources: ['packages/client/authClient.ts', 'packages/client/contract.ts'],
    tests: [
      'tests/business/{authClient,business}.test.ts',
      'tests/business/vectors.test.ts',
      'tests/client/conformance.test.ts',
    ],
  },
  authority: {
    sources: ['services/auth/users/authorities.ts', 'services/auth/routes/authority.ts'],
    tests: ['tests/auth/users/authorities.test.ts', 'tests/auth/routes/authority.test.ts'],
  },
  guards: {
    sources: ['packages/client/{guards,rules,shadowRules}.ts', 'services/business/requireNeeds.ts'],
    tests: ['tests/client/guards.test.ts', 'tests/business/rules.test.ts'],
  },
  events: {
    sources: ['services/auth/observability/eventStream.ts', 'services/auth/clock.ts'],
    tests: ['tests/auth/observability/events.test.ts', 'tests/auth/clock.test.ts'],
  },
}
