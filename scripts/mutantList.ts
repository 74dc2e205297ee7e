// The faults that `npm run mutants` plants: where, what is wrong then, the exact text and what takes its place. Each must
// be caught by the tests named with its file; a new one is one more entry. The text must be there exactly once.

export interface Mutant {
  /** What is wrong then. */
  name: string
  file: string
  find: string
  replace: string
  /** At least one test of these files must fail. */
  tests: string[]
}

type Fault = [name: string, find: string, replace: string]

const within = (file: string, tests: string[], faults: Fault[]): Mutant[] =>
  faults.map(([name, find, replace]) => ({ name, file, find, replace, tests }))

const everyStore = ['tests/stores.test.ts']
const consume = "end(slot, 'consumed', now)"
const admitted = `        const slot = admit(ref, now, purpose)
        if (slot === none) return null
        use(slot, now)`

const memoryStore = within('services/auth/stores/memory.ts', everyStore, [
  // live and dead
  ['a token is live at exactly expiresAt', 'expiryOf(slot) <= now || holder', 'expiryOf(slot) < now || holder'],
  ['a token is dead a millisecond early', 'expiryOf(slot) <= now || holder', 'expiryOf(slot) <= now + 1 || holder'],
  ['nothing expires', 'expiryOf(slot) <= now || holderOf(slot).ended', 'holderOf(slot).ended'],
  [
    'a sweep revives what it should remove',
    '        remove(sweepAt)',
    '        pageOf(sweepAt).expiresAt[placeOf(sweepAt)] = Infinity',
  ],
  // touch
  ['a touch extends past the absolute end', 'Math.min(now + ttlMs, absoluteExpiresAt[i] as number)', 'now + ttlMs'],
  ['a touch extends a fixed token', "if (kind === 'sliding') expiresAt[i]", 'expiresAt[i]'],
  ['a touch extends nothing', "if (kind === 'sliding') expiresAt[i]", 'if (false) expiresAt[i]'],
  ['a touch is not counted', '(refreshCount[i] as number) + 1', '(refreshCount[i] as number)'],
  ['a touch leaves no time of use', '    lastUsedAt[i] = now\n', ''],
  ['a touch does not consume', `holderOf(slot).kind === 'single-use' ? ${consume} : read(slot)`, 'read(slot)'],
  [
    'a touch checks the whole batch before it consumes',
    `return refs.map(ref => {\n${admitted}`,
    `return refs.map(ref => admit(ref, now, purpose)).map(slot => {
        if (slot === none) return null
        use(slot, now)`,
  ],
  [
    'a token is consumed a moment after its answer',
    `kind === 'single-use' ? ${consume} : read(slot)`,
    `kind === 'single-use' ? (setImmediate(() => find(ref) === slot && ${consume}), read(slot)) : read(slot)`,
  ],
  ['a touch ignores the purpose', ' && holderOf(slot).purpose === purpose ? slot', ' ? slot'],
  ['a touch ignores the hash', 'slot !== none && table.hasHash(slot, hash) ? slot : none', 'slot'],
  [
    'a touch answers a batch backwards',
    `return refs.map(ref => {\n${admitted}`,
    `return refs.toReversed().map(ref => {\n${admitted}`,
  ],
  [
    'a touch collapses the duplicates of a batch',
    `return refs.map(ref => {\n${admitted}`,
    `return [...new Set(refs)].map(ref => {\n${admitted}`,
  ],
  [
    'a touch counts the duplicates of a batch once',
    `return refs.map(ref => {\n${admitted}`,
    `return refs.map((ref, i) => {\n${admitted.replace('        use', '        if (refs.indexOf(ref) === i) use')}`,
  ],
  [
    'a look touches',
    '        return slot === none ? null : read(slot)',
    '        if (slot !== none) use(slot, now)\n        return slot === none ? null : read(slot)',
  ],
  ['a second token of the same id is taken', "if (table.find(ref.id) !== none) return 'taken'", ''],
  // the floor
  ['a touch ignores the floor', 'expiryOf(slot) <= now || holderOf(slot).ended', 'expiryOf(slot) <= now'],
  ['an insert ignores the floor', "if (known && token.credentialVersion < known.floor) return 'ended'", ''],
  ['an insert refuses what is at the floor', 'credentialVersion < known.floor', 'credentialVersion <= known.floor'],
  ['the floor ends what is at it', 'credentialVersion < user.floor', 'credentialVersion <= user.floor'],
  ['the floor can be lowered', 'Math.max(user.floor, version)', 'version'],
  ['the floor goes with the last token', ' && user.floor === 0) users.delete', ') users.delete'],
  [
    'a user without tokens gets no floor',
    'const user = userOf(userId)\n',
    'const user = users.get(userId) ?? createUser(userId)\n',
  ],
  [
    'the floor ends only the tokens of one kind',
    'for (const number of user.holders) {',
    'for (const number of user.holders.slice(0, 1)) {',
  ],
  // delete
  ['what is deleted stays', '    remove(slot)\n    return token', '    return token'],
  ['a delete ignores the hash', 'find(ref)\n      return slot', 'table.find(ref.id)\n      return slot'],
  ['a delete spares what has a purpose', 'find(ref)\n      return slot', 'admit(ref, now, null)\n      return slot'],
  // renew
  ['the old secret outlives a renewal', '      table.setHash(slot, newHash)\n', ''],
  [
    'a renewal moves the absolute end',
    'table.setHash(slot, newHash)\n',
    'table.setHash(slot, newHash)\n      pageOf(slot).absoluteExpiresAt[placeOf(slot)] += 1000\n',
  ],
  ['a renewal does not extend', '      use(slot, now)\n      remember', '      remember'],
  [
    'a fixed token is renewed',
    'if (slot === none || !isSession(holderOf(slot))) return null',
    'if (slot === none) return null',
  ],
  ['a dead token is renewed', 'const slot = admit(ref, now, null)', 'const slot = find(ref)'],
  // the limits
  ["a limit ends somebody else's token", "end(oldestSession, 'evicted', now)", "end(0, 'evicted', now)"],
  ['a limit ends the newest session', 'slotsOf(user).find(slot', 'slotsOf(user).findLast(slot'],
  ['a limit ends what is no session', 'slotsOf(user).find(slot => isSession(holderOf(slot)))', 'slotsOf(user)[0]'],
  ['a limit counts the dead', '      remove(slot)\n    }\n    if (user.tokens', '    }\n    if (user.tokens'],
  ['what makes room is forgotten', '      remember(table.idOf(slot), causeOf(slot))\n', ''],
  [
    'the limit of a user is ignored',
    ' || user.tokens < perUser) return true\n    for',
    ') return true\n    return true\n    for',
  ],
  [
    'the limit of a user lets one more in',
    'user === guests || user.tokens < perUser',
    'user === guests || user.tokens <= perUser',
  ],
  ['the limit of a user holds for all guests together', 'user === guests || user.tokens', 'user.tokens'],
  ['the total is ignored', ' || table.count() >= total) return', ') return'],
  ['the total lets one more in', 'table.count() >= total', 'table.count() > total'],
  // what tokens have in common
  ['tokens of two times to live share the first', 'return isSame && known.ttlMs === ttlMs', 'return isSame'],
  ['tokens of two purposes share the first', ' && known.purpose === purpose\n', '\n'],
  ['a list of tokens forgets its newest end', 'if (newer === none) user.newest = older', 'if (newer === none) {}'],
  // explain
  ['an end is not remembered', '    remember(token.id, { reason, at: now })\n', ''],
  ['a renewal is told as a revocation', "{ reason: 'renewed', at: now }", "{ reason: 'revoked', at: now }"],
  ['an eviction is told as a revocation', "end(oldestSession, 'evicted', now)", "end(oldestSession, 'revoked', now)"],
  ['an ended token is told as expired', "? { reason: 'ended' } :", "? { reason: 'expired', at: now } :"],
  ['an expiry is told as of now', "'expired', at: expiryOf(slot)", "'expired', at: now"],
  ['another purpose is told as unknown', "? 'unknown' : 'other purpose'", "? 'unknown' : 'unknown'"],
  ['what is swept is forgotten', 'remember(table.idOf(sweepAt), causeOf(sweepAt))', '{}'],
  // the sweep
  ['a sweep removes the live', 'expiresAt === Infinity || !isDead(sweepAt, now)', 'expiresAt === Infinity'],
  ['a sweep is a millisecond early', '!isDead(sweepAt, now)) continue', '!isDead(sweepAt, now + 1)) continue'],
  ['a sweep is a millisecond late', '!isDead(sweepAt, now)) continue', '!isDead(sweepAt, now - 1)) continue'],
  ['a sweep spares what is below the floor', '!isDead(sweepAt, now)) continue', 'expiresAt > now) continue'],
  ['a sweep removes nothing and says it did', '        remove(sweepAt)\n', ''],
  ['a slice has no limit', 'Math.min(sweepAt + limit, table.used())', 'table.used()'],
  ['a sweep is done after its first slice', 'const done = sweepAt >= table.used()', 'const done = true'],
  ['a sweep never begins again', 'if (done) sweepAt = 0', ''],
  // the end
  ['a closed store answers', '      closed = true\n', ''],
  // users
  ['a username can be taken twice', 'byUsername.has(user.username) || ', ''],
  ['two changes of credentials get one version', 'user?.credentialVersion === ifVersion', 'user'],
])

const memoryTable = within('services/auth/stores/memoryTable.ts', everyStore, [
  ['only the beginning of a hash is compared', 'part < 4; part++) if', 'part < 1; part++) if'],
  ['a free slot is not used again', 'const slot = freed === none ? used++ : freed', 'const slot = used++'],
  ['a free slot still expires', '      page.expiresAt[i] = Infinity\n', ''],
  ['a token is not taken out of the count', '      count--\n', ''],
  ['an id is written backwards', 'digits = base62[rest % 62] + digits', 'digits += base62[rest % 62]'],
])

const memoryIndex = within(
  'services/auth/stores/memoryIndex.ts',
  ['tests/memoryIndex.test.ts'],
  [
    [
      'a removal leaves a gap in a probe',
      'at = (hole + 1) & mask; entries[at] !== 0;',
      'at = hole; entries[at] === 0;',
    ],
    ['a removal moves what is at home', 'if (((at - home) & mask) < ((at - hole) & mask)) continue', ''],
    ['a split drops entries', 'if (entry === 0) continue', 'if (entry % 1000 === 0) continue'],
    ['a split looks at the wrong bit', '(hash >>> (31 - segment.depth)) & 1', '(hash >>> (30 - segment.depth)) & 1'],
    ['a probe takes the first slot it meets', 'if (isWanted(entry - 1)) return', 'return'],
    ['the slots of a hash are one short', 'segment.entries[at] = slot + 1', 'segment.entries[at] = slot'],
  ],
)

const format = within(
  'services/auth/tokens/format.ts',
  ['tests/format.test.ts', 'tests/tokens.test.ts'],
  [
    [
      'the checksum is not checked',
      'if (secret.slice(checksumAt) !== checksumOf(secret.slice(0, checksumAt))) return null',
      '',
    ],
    ['a secret has 32 random bits', 'randomBase62(randomLength)', "randomBase62(5).padEnd(randomLength, '0')"],
    ['some characters are drawn more often', 'byte < 248', 'byte < 256'],
  ],
)

const tokens = within(
  'services/auth/tokens/tokens.ts',
  ['tests/tokens.test.ts'],
  [
    ['junk reaches the store', 'wellFormed.length === 0 ? [] : await ask(', 'await ask('],
    [
      'an outage is a no',
      "await ask(store[touch ? 'touch' : 'look'](wellFormed, at, purpose))",
      "await store[touch ? 'touch' : 'look'](wellFormed, at, purpose).catch(() => [])",
    ],
    [
      'an outage has no cause and no code',
      "return orUnavailable(answer, 'The token store could not be asked.')",
      'return answer',
    ],
    ['the order of a batch is lost where junk is in it', 'found[next++] ?? null', 'found[refs.indexOf(ref)] ?? null'],
    ['a look touches', "[touch ? 'touch' : 'look']", "['touch']"],
    ['a touch looks', "[touch ? 'touch' : 'look']", "['look']"],
    ['a log-out deletes what is no session', 'if (!isSession(seen)) return false', ''],
    ['a log-out deletes nothing', 'const token = await ask(store.delete(ref, now()))', 'const token = seen'],
    [
      'a use of a session consumes other tokens',
      'if (!(await lookAtSession(secret))) return null\n      const [used]',
      'const [used]',
    ],
    ['a guest has a session', ' && purpose === null && userId !== null', ' && purpose === null'],
    [
      'a user ends the session of another',
      'if (!own.some(token => token.id === id && isSession(token))) return false',
      '',
    ],
    [
      'a token outlives its absolute end from the start',
      'expiresAt: Math.min(createdAt + ttlMs, absoluteExpiresAt)',
      'expiresAt: createdAt + ttlMs',
    ],
    ['a token is issued although the credentials changed', "if (outcome === 'ended') return null", ''],
    ['a token is issued although there is no room', "if (outcome === 'full') throw", "if (outcome === 'never') throw"],
    ['an event tells the secret', "type: 'issued', tokenId: id", "type: 'issued', tokenId: secret"],
    ['a scan makes the store explain everything', 'explanations >= mostExplanations', 'explanations >= Infinity'],
  ],
)

const sweeper = within(
  'services/auth/tokens/sweeper.ts',
  ['tests/sweeper.test.ts'],
  [
    ['two sweeps overlap', 'running ??= sweepInSlices()', 'running = sweepInSlices()'],
    [
      'a failed sweep is the last',
      'await sweep().catch(cause => observe({',
      'await sweep().catch(cause => void (stopped = true) ?? observe({',
    ],
    ['a stop does not wait', 'await running?.catch(() => {})', ''],
    ['a stop does not stop', '!done && !stopped', '!done'],
    ['nobody has a turn while it sweeps', '      await nextTurn()\n', ''],
    [
      'everybody has a turn after each slice',
      'if (done || monotonicNow() - sliceStartedAt < sliceMs) continue',
      'if (done) continue',
    ],
  ],
)

const authClient = within(
  'services/business/authClient.ts',
  ['tests/business.test.ts'],
  [
    [
      'it tries again',
      'await ask(call).catch((error: Error) => error)',
      'await ask(call).catch(() => ask(call)).catch((error: Error) => error)',
    ],
    [
      'it caches a verdict',
      '    const batch = join(token, caller)\n    const at = batch.tokens.length - 1\n    const verdicts = await batch.verdicts.promise',
      `    const cache = (pool as any).cache ??= new Map()
    const batch = cache.get(token) ?? join(token, caller)
    if (!cache.has(token)) cache.set(token, Object.assign(batch, { at: batch.tokens.length - 1 }))
    const { at } = batch
    const verdicts = await batch.verdicts.promise`,
    ],
    ['it swaps the answers of a batch', 'verdict: verdicts[at]', 'verdict: verdicts.toReversed()[at]'],
    [
      'a request joins a call in flight',
      '    const batch = join(token, caller)\n',
      `    for (const { tokens, verdicts } of [...inFlight].flatMap(({ batches }) => batches)) {
      if (tokens.includes(token)) return (await verdicts.promise)[tokens.indexOf(token)] as Verdict
    }
    const batch = join(token, caller)\n`,
    ],
    ['a verdict counts whatever the status', 'if (answer.status !== 200) throw', 'if (answer.status === 0) throw'],
    [
      "another call's answer counts",
      "if (answer.headers['x-request-id'] !== callId) throw",
      "if (answer.headers['x-request-id'] === '') throw",
    ],
    ['an answer may be of any size', 'if (size > maxAnswerBytes)', 'if (size > Infinity)'],
    [
      'a call does not wait until another is answered',
      'connections: maxCalls,',
      'connections: maxCalls, ...(void (maxCalls = Infinity) ?? {}),',
    ],
    [
      'there is no end to those who wait',
      'if (waitingCount >= maxWaiting) throw',
      'if (waitingCount >= Infinity) throw',
    ],
    ['a call in flight has no deadline', '.deadlineAt <= now) abort.abort', '.deadlineAt <= 0) abort.abort'],
    [
      'a young request shares the deadline of an old one',
      '(batches.at(-1) as Batch).deadlineAt <= now',
      '(batches[0] as Batch).deadlineAt <= now',
    ],
    [
      'those who came one after another wait for calls of their own',
      'while (waiting[0] && size',
      'while (null && size',
    ],
    ['those who share a call share its first verdicts', 'outcome.slice(from, from + tokens.length)', 'outcome'],
    ['an outage is logged for each request', 'if (failedRequests === 0) log.warn', 'log.warn'],
  ],
)

const clock = within(
  'services/auth/clock.ts',
  ['tests/clock.test.ts'],
  [
    ['it goes back', 'Math.max(wallNow(), at + elapsedMs)', 'wallNow()'],
    ['it stands still while it waits for the other', 'Math.max(wallNow(), at + elapsedMs)', 'Math.max(wallNow(), at)'],
    ['it does not jump ahead', 'Math.max(wallNow(), at + elapsedMs)', 'at + elapsedMs'],
  ],
)

const hashWorker = within(
  'services/auth/users/hashWorker.ts',
  ['tests/passwords.test.ts'],
  [['it is as important as the thread that validates', 'setPriority(0, 5)', 'setPriority(0, 0)']],
)

const requireToken = within(
  'services/business/requireToken.ts',
  ['tests/business.test.ts'],
  [
    [
      'an outage is a 401',
      'await auth.judge(readBearerToken(ctx.req), ctx.state)',
      "await auth.judge(readBearerToken(ctx.req), ctx.state).catch(() => ({ verdict: { authenticated: false }, serverTiming: '' }) as const)",
    ],
    ['every verdict is good', 'if (!verdict.authenticated) throw await invalidTokens.refusal(ctx.state)', ''],
  ],
)

const wire = within(
  'shared/validateToken.ts',
  ['tests/business.test.ts'],
  [
    ['fewer verdicts than tokens are enough', ' || verdicts.length !== count) throw', ') throw'],
    ['whatever is truthy is a yes', 'verdict.authenticated === true &&', 'verdict.authenticated &&'],
  ],
)

const passwords = within(
  'services/auth/users/passwords.ts',
  ['tests/passwords.test.ts'],
  [
    [
      'bcrypt gets the password and cuts it',
      "createHmac('sha256', 'latchkey password').update(password.normalize('NFKC')).digest('base64')",
      "(createHmac('sha256', ''), password.normalize('NFKC'))",
    ],
    ['an accent is typed in one way only', "password.normalize('NFKC')", 'password'],
    [
      'an unknown user costs no hash',
      'const bare = known?.isBare === true',
      'if (known === null) return false\n      const bare = known.isBare',
    ],
    ["the empty password opens what is nobody's", 'matches === true && known !== null', 'matches === true'],
    ['bare bcrypt takes what it cannot tell apart', ' && !(bare && isAmbiguous(password))', ''],
    ['no hash is ever renewed', 'known.isBare || known.cost < cost', 'false'],
    ['the queue has no end', 'waiting.length >= maxQueue', 'waiting.length >= Infinity'],
  ],
)

const users = within(
  'services/auth/users/users.ts',
  ['tests/passwords.test.ts'],
  [
    [
      'an unknown user costs no hash',
      'await passwords.verify(password, user?.passwordHash ?? null, signal)',
      'user !== null && (await passwords.verify(password, user.passwordHash, signal))',
    ],
    ['a wrong password is good', "if (!matches) return 'wrong password'", ''],
    ['the disabled may log in', "if (user.disabledAt !== null) return 'disabled'", ''],
    ['whoever has not confirmed may log in', "user.confirmedAt === null ? 'unconfirmed' : null", 'null'],
    ['a username has capitals', ".normalize('NFKC').toLowerCase()", ".normalize('NFKC')"],
  ],
)

const sqlStore = within(
  'services/auth/stores/sql.ts',
  ['tests/stores.test.ts'],
  [
    ['a touch forgets the floor', 'and t.credential_version >= coalesce(f.version, 0)', ''],
    ['a token is live at exactly expiresAt', 'is null and t.expires_at > ', 'is null and t.expires_at >= '],
    ['every mention of a batch counts as one', 'else times end', 'else 1 end'],
  ],
)

const redisScripts = within(
  'services/auth/stores/redisScripts.ts',
  ['tests/stores.test.ts'],
  [
    ['a touch forgets the floor', 'if t.version < floorOf(key, t.user) then return nil end', ''],
    ['a token is live at exactly expiresAt', 't.expires <= now or t.purpose', 't.expires < now or t.purpose'],
    ['only the id of a token counts', 't.hash ~= hash or ', ''],
  ],
)

const links = within(
  'services/auth/users/links.ts',
  ['tests/mail.test.ts'],
  [['an older link stays good', 'tokens.issueOnly(terms)', 'tokens.issue(terms)']],
)

const eventStream = within(
  'services/auth/eventStream.ts',
  ['tests/events.test.ts'],
  [
    ['what happens is kept where nobody reads', 'if (readers.size === 0) return\n    switch', 'switch'],
    ['a frame holds whatever happens', 'count === 1 && frame.size >= maxPerFrame', 'false'],
    ['a slow reader keeps all that happens', 'reader.stream.readableLength + text.length > maxWaitingBytes', 'false'],
    ['who missed something is not told', 'reader.dropped += happened', ''],
    [
      'a renewed session expires at its old end',
      "watch(tokenId, userId, expiresAt)\n        return add(tokenId, 'renewed'",
      "return add(tokenId, 'renewed'",
    ],
    ['the session that is kept is not watched any more', ' && id !== keep', ''],
    ['there are any number of readers', 'closed || readers.size >= maxReaders', 'closed'],
    ['a reader who has gone counts', 'readers.delete(reader)', ''],
    ['a stream outlives Auth', 'stream.push(null)', 'stream.resume()'],
    ['a quiet stream is taken for dead', "text = ':\\n\\n'", "text = ''"],
  ],
)

const serverTiming = within(
  'services/business/requireToken.ts',
  ['tests/serverTiming.test.ts'],
  [
    [
      'strangers learn how busy Auth is',
      '    if (!verdict.authenticated)',
      "    ctx.res.setHeader('Server-Timing', serverTiming)\n    if (!verdict.authenticated)",
    ],
  ],
)

export const mutants: Mutant[] = [
  ...eventStream,
  ...serverTiming,
  ...sqlStore,
  ...redisScripts,
  ...links,
  ...memoryStore,
  ...memoryTable,
  ...memoryIndex,
  ...format,
  ...tokens,
  ...sweeper,
  ...clock,
  ...hashWorker,
  ...authClient,
  ...requireToken,
  ...wire,
  ...passwords,
  ...users,
]
