// Whole flows by the JavaScript client: who, where, when and how become codes in locks, cards and mobile keys.
//
// What only people can do, such as laying a card down, is asked for on standard output and answered on standard input.
// A call that this line of the client does not know is skipped, and said to be.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { createInterface } from 'node:readline'

const { PACKAGE, API: endpoint, API_KEY: apiKey } = process.env
const client = await import(PACKAGE)
const { Seam, isSeamHttpApiError, isSeamHttpInvalidInputError, isSeamHttpUnauthorizedError } = client
const { version } = JSON.parse(readFileSync(`node_modules/${PACKAGE}/package.json`))
const seam = new Seam({ apiKey, endpoint })

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`)
const please = async (what, about) => {
  say({ please: what, ...about })
  return JSON.parse((await answers.next()).value)
}

const skipped = Symbol('skipped')
const call = async (path, params, options) => {
  const names = path.split('.')
  const name = names.pop()
  const group = names.reduce((within, next) => within?.[next], seam)
  if (typeof group?.[name] !== 'function') {
    say({ skipped: `${path} (${PACKAGE} ${version})` })
    return skipped
  }
  return group[name](params, options)
}

const until = async (what, look) => {
  const end = Date.now() + 40_000
  while (Date.now() < end) {
    const seen = await look()
    if (seen) return seen
    await new Promise((next) => setTimeout(next, 25))
  }
  assert.fail(`waited in vain until ${what}`)
}

// What the clients throw, in a table's words.
const refused = async (asked, expected) => {
  const error = await asked.then(
    () => assert.fail('it was not refused'),
    (error) => error,
  )
  assert.ok(isSeamHttpApiError(error), String(error))
  const { code, statusCode, requestId } = error
  assert.deepEqual([statusCode, code], expected, error.message)
  assert.match(requestId, /^[0-9a-f-]{36}$/)
  return error
}

const ids = (things, key) => things.map((thing) => thing[key]).sort()
const hours = (count) => new Date(Date.now() + count * 3_600_000).toISOString()
// The days of an example, moved to where they lie ahead: from the next 15:00 on.
const [checkIn, checkOut] = (() => {
  const first = new Date()
  first.setUTCHours(15, 0, 0, 0)
  if (first <= new Date()) first.setUTCDate(first.getUTCDate() + 1)
  const last = new Date(first)
  last.setUTCDate(last.getUTCDate() + 3)
  last.setUTCHours(11)
  return [first, last].map((date) => date.toISOString())
})()

const issued = (access_method_id) =>
  until('the access method is issued', async () => {
    const method = await call('accessMethods.get', { access_method_id })
    return method.is_issued && method.pending_mutations.length === 0 && method
  })
// What is deleted is there until the locks have let go of it.
const gone = async (path, params) => {
  const look = () =>
    call(path, params).then(
      () => false,
      (error) => error,
    )
  const { statusCode, code } = await until(`${path} finds it no longer`, look)
  assert.equal(statusCode, 404, code)
  assert.match(code, /_not_found$/)
}
const eventsOf = async (access_grant_id) => {
  const events = await call('events.list', { since: '2020-01-01T00:00:00Z', access_grant_id })
  return events.map(({ event_type }) => event_type)
}
// Lays a card down as soon as the encoder waits for one, and takes it away when it is written.
const encode = async (access_method_id, card) => {
  const laid = please('lay the card down when it is asked for', { card, encoder: encoder.display_name })
  const attempt = await call('accessMethods.encode', {
    access_method_id,
    acs_encoder_id: encoder.acs_encoder_id,
  })
  await laid
  await please('take the card', { encoder: encoder.display_name })
  assert.equal(attempt.status, 'success')
  assert.equal(attempt.action_type, 'ENCODE_CREDENTIAL')
  return attempt.result
}
const opens = (card, door) => please('try the card', { card, door })
const unlocks = (code, lock) => please('type the code', { code, lock })
const holds = (lock) => please('look what the lock holds', { lock })

let doors, encoder, system
const door = (name) => doors.find(({ display_name }) => display_name === name).acs_entrance_id

const flows = {
  async 'a code for a device, before and with its user'() {
    const devices = await call('devices.list')
    const lock = devices.find((device) => device.can_program_online_access_codes)
    assert.equal(lock.display_name, 'Front Door')
    const jane = await call('userIdentities.create', {
      full_name: 'Jane Doe',
      email_address: 'jane@example.com',
    })
    assert.deepEqual([jane.full_name, jane.email_address], ['Jane Doe', 'jane@example.com'])
    const grant = await call('accessGrants.create', {
      user_identity_id: jane.user_identity_id,
      device_ids: [lock.device_id],
      requested_access_methods: [{ mode: 'code' }],
      starts_at: checkIn,
      ends_at: checkOut,
    })
    assert.equal(grant.display_name, 'My Access Grant')
    assert.equal(grant.user_identity_id, jane.user_identity_id)
    assert.deepEqual([grant.starts_at, grant.ends_at], [checkIn, checkOut])
    const [{ display_name, mode, created_access_method_ids }] = grant.requested_access_methods
    assert.deepEqual([display_name, mode, created_access_method_ids.length], ['PIN Code', 'code', 1])
    const [access_method_id] = created_access_method_ids
    const method = await issued(access_method_id)
    assert.deepEqual([method.display_name, method.mode], ['PIN Code', 'code'])
    assert.match(method.code, /^\d{4,8}$/)
    // It is in the lock, and opens when its time has come.
    assert.deepEqual(await holds('lock-1'), [access_method_id])
    assert.equal(await unlocks(method.code, 'lock-1'), false)

    const second = await call('accessGrants.create', {
      user_identity: { full_name: 'Jane Doe', email_address: 'jane.doe@example.com' },
      device_ids: devices.map(({ device_id }) => device_id),
      requested_access_methods: [{ mode: 'code' }],
      starts_at: hours(0),
      ends_at: hours(48),
    })
    const { code } = await issued(second.access_method_ids[0])
    for (const lock of ['lock-1', 'lock-2', 'lock-3']) assert.equal(await unlocks(code, lock), true)
    for (const { access_grant_id } of [grant, second]) {
      await call('accessGrants.delete', { access_grant_id })
      await gone('accessGrants.get', { access_grant_id })
    }
    for (const lock of ['lock-1', 'lock-2', 'lock-3']) assert.deepEqual(await holds(lock), [])
    assert.equal(await unlocks(code, 'lock-2'), false)
  },

  async 'a card for entrances, written while the client waits, and read'() {
    const listed = await call('acs.systems.list')
    system = listed.find(({ name }) => name === 'house')
    const { acs_system_id } = system
    assert.deepEqual((await call('acs.systems.get', { acs_system_id })).errors, [])
    doors = await call('acs.entrances.list', { acs_system_id })
    assert.equal(doors.length, 7)
    const acs_entrance_id = door('101')
    const room = await call('acs.entrances.get', { acs_entrance_id })
    assert.deepEqual([room.can_unlock_with_card, room.can_belong_to_reservation], [true, true])
    ;[encoder] = await call('acs.encoders.list', { acs_system_ids: [acs_system_id] })
    const { acs_encoder_id } = encoder
    assert.equal((await call('acs.encoders.get', { acs_encoder_id })).display_name, '1')

    const stay = {
      acs_entrance_ids: [door('101'), door('pool')],
      requested_access_methods: [{ mode: 'card' }],
      reservation_key: 'stay-1',
      starts_at: hours(0),
      ends_at: hours(48),
    }
    const ada = await call('accessGrants.create', { ...stay, user_identity: { full_name: 'Ada' } })
    const [access_method_id] = ada.access_method_ids
    const waiting = await call('accessMethods.get', { access_method_id })
    assert.deepEqual(
      [waiting.display_name, waiting.is_issued, waiting.is_encoding_required, waiting.is_ready_for_encoding],
      ['Plastic Card', false, true, true],
    )
    const card = await encode(access_method_id, 'ada')
    assert.deepEqual([card.external_type, card.is_issued], ['salto_space_key', true])
    const written = await call('accessMethods.get', { access_method_id })
    assert.deepEqual(
      [written.is_issued, written.is_encoding_required, written.is_ready_for_encoding],
      [true, false, false],
    )
    // Asked for now and looked at later.
    const asked = await call(
      'acs.encoders.scanCredential',
      { acs_encoder_id },
      { waitForActionAttempt: false },
    )
    assert.deepEqual([asked.status, asked.result, asked.error], ['pending', null, null])
    await please('lay the card down when it is asked for', { card: 'ada', encoder: '1' })
    const scan = await call('actionAttempts.get', { action_attempt_id: asked.action_attempt_id })
    assert.deepEqual([scan.action_type, scan.status], ['SCAN_CREDENTIAL', 'success'])
    assert.equal(scan.result.acs_credential_on_seam.acs_credential_id, card.acs_credential_id)
    assert.deepEqual(scan.result.warnings, [])
    await please('take the card', { encoder: '1' })

    // Whoever shares the room does not shut the first guest out.
    const bo = await call('accessGrants.create', { ...stay, user_identity: { full_name: 'Bo' } })
    await encode(bo.access_method_ids[0], 'bo')
    for (const guest of ['ada', 'bo']) {
      assert.equal(await opens(guest, '101'), true)
      assert.equal(await opens(guest, 'pool'), true)
      assert.equal(await opens(guest, '102'), false)
    }
    const covered = await call('acs.entrances.list', { access_method_id })
    assert.deepEqual(ids(covered, 'display_name'), ['101', 'pool'])
  },

  async 'a code, a card and a mobile key in one grant'() {
    const front = await call('devices.get', { name: 'Front Door' })
    const grant = await call('accessGrants.create', {
      user_identity: { full_name: 'Cleo' },
      acs_entrance_ids: [door('102')],
      device_ids: [front.device_id],
      requested_access_methods: [{ mode: 'code', code: '580316' }, { mode: 'card' }, { mode: 'mobile_key' }],
      reservation_key: 'stay-2',
      access_grant_key: 'cleo',
      name: 'Cleo in 102',
      starts_at: hours(0),
      ends_at: hours(48),
    })
    const { access_grant_id } = grant
    assert.equal(grant.display_name, 'Cleo in 102')
    assert.deepEqual(
      grant.requested_access_methods.map(({ mode, display_name }) => [mode, display_name]),
      [
        ['code', 'PIN Code'],
        ['card', 'Plastic Card'],
        ['mobile_key', 'Mobile Key'],
      ],
    )
    const [code, card, key] = grant.requested_access_methods.map(
      ({ created_access_method_ids }) => created_access_method_ids[0],
    )
    // A mobile key is there at once.
    assert.match(grant.instant_key_url, /^https:\/\/keys\.example\/.+/)
    const handed = await issued(key)
    assert.equal(handed.instant_key_url, grant.instant_key_url)
    assert.equal((await issued(code)).code, '580316')
    assert.equal(await unlocks('580316', 'lock-1'), true)
    await encode(card, 'cleo')
    assert.equal(await opens('cleo', '102'), true)
    const methods = await call('accessMethods.list', { access_grant_id })
    assert.deepEqual(ids(methods, 'access_method_id'), [code, card, key].sort())
    assert.ok(methods.every(({ is_issued }) => is_issued))

    // A code that somebody has is not given to somebody else.
    const other = await call('accessGrants.create', {
      user_identity: { full_name: 'Dan' },
      device_ids: [front.device_id],
      requested_access_methods: [{ mode: 'code', code: '580316' }],
      ends_at: hours(48),
    })
    const another = await issued(other.access_method_ids[0])
    assert.notEqual(another.code, '580316')
    assert.deepEqual(ids(another.warnings, 'warning_code'), ['requested_code_unavailable'])
    const told = await call('accessGrants.get', { access_grant_id: other.access_grant_id })
    assert.deepEqual(
      told.warnings.map(({ warning_code, original_code, new_code }) => [warning_code, original_code, new_code]),
      [['requested_code_unavailable', '580316', another.code]],
    )

    // One more card, and everything that belongs to the grant.
    const more = await call('accessGrants.requestAccessMethods', {
      access_grant_id,
      requested_access_methods: [{ mode: 'card' }],
    })
    assert.equal(more.access_method_ids.length, 4)
    await encode(more.requested_access_methods[3].created_access_method_ids[0], 'cleo-too')
    assert.equal(await opens('cleo-too', '102'), true)
    assert.equal(await opens('cleo', '102'), true)
    const related = await call('accessGrants.getRelated', {
      access_grant_ids: [access_grant_id],
      include: ['devices', 'acs_entrances', 'user_identities', 'access_methods', 'acs_systems'],
    })
    assert.deepEqual(ids(related.devices, 'display_name'), ['Front Door'])
    assert.deepEqual(ids(related.acs_entrances, 'display_name'), ['102'])
    assert.deepEqual(ids(related.user_identities, 'full_name'), ['Cleo'])
    assert.equal(related.access_methods.length, 4)
    const made = await call('accessMethods.getRelated', { access_method_ids: [card] })
    assert.deepEqual(ids(made.acs_credentials, 'external_type'), ['salto_space_key'])

    // Other times: the code stays what it is, and the card is written again.
    // (Cards know whole minutes only.)
    const ends_at = hours(72).replace(/:[^:]+$/, ':00.000Z')
    await call('accessGrants.update', { access_grant_key: 'cleo', ends_at, name: 'Cleo, one day more' })
    assert.equal((await issued(code)).code, '580316')
    const again = await call('accessMethods.get', { access_method_id: card })
    assert.deepEqual(
      [again.is_issued, again.is_encoding_required, again.is_ready_for_encoding],
      [false, true, true],
    )
    const longer = await encode(card, 'cleo')
    assert.equal(longer.ends_at, ends_at)
    const later = await call('accessGrants.get', { access_grant_key: 'cleo' })
    assert.deepEqual([later.name, later.ends_at], ['Cleo, one day more', ends_at])
    assert.equal(await opens('cleo', '102'), true)

    // Another place: in the guides, though not among the parameters that the clients' types know.
    const back = await call('devices.get', { name: 'Back Door' })
    await call('accessGrants.update', { access_grant_id, device_ids: [front.device_id, back.device_id] })
    await until('the code is in the other lock', () => unlocks('580316', 'lock-2'))
    await call('accessGrants.update', { access_grant_id, device_ids: [front.device_id] })
    await until('the code has left it', async () => (await holds('lock-2')).length === 0)
    assert.equal((await issued(code)).code, '580316')

    // One means goes, the others stay; then all of it.
    await call('accessMethods.delete', { access_method_id: code })
    await gone('accessMethods.get', { access_method_id: code })
    assert.equal(await unlocks('580316', 'lock-1'), false)
    const events = await eventsOf(access_grant_id)
    for (const event of [
      'access_grant.created',
      'access_method.created',
      'access_method.issued',
      'access_method.card_encoding_required',
      'access_grant.access_times_changed',
      'access_method.revoked',
      'access_method.reissued',
      'access_method.deleted',
    ]) {
      assert.ok(events.includes(event), `${event}: ${events}`)
    }
    await call('accessGrants.delete', { access_grant_id: other.access_grant_id })
    await gone('accessGrants.get', { access_grant_id: other.access_grant_id })
    await call('accessGrants.delete', { access_grant_id })
  },

  async 'a space, and grants that follow it'() {
    const devices = await call('devices.list')
    const device = (name) => devices.find(({ display_name }) => display_name === name).device_id
    const space = await call('spaces.create', {
      name: 'Unit 103',
      space_key: 'unit-103',
      acs_entrance_ids: [door('103')],
      device_ids: [device('Front Door')],
    })
    const { space_id } = space
    assert.deepEqual([space.acs_entrance_count, space.device_count], [1, 1])
    const grant = await call('accessGrants.create', {
      user_identity: { full_name: 'Eve' },
      space_ids: [space_id],
      requested_access_methods: [{ mode: 'code' }, { mode: 'card' }],
      reservation_key: 'stay-3',
      ends_at: hours(48),
    })
    const { access_grant_id } = grant
    assert.deepEqual(grant.space_ids, [space_id])
    const [method, card] = grant.requested_access_methods.map(
      ({ created_access_method_ids }) => created_access_method_ids[0],
    )
    const { code } = await issued(method)
    assert.equal(await unlocks(code, 'lock-1'), true)
    await encode(card, 'eve')
    assert.equal(await opens('eve', '103'), true)

    // What the space gets the grant gets, and the other way round.
    await call('spaces.addDevices', { space_id, device_ids: [device('Back Door'), device('Garage')] })
    await until('the code is in the other locks', async () => unlocks(code, 'lock-3'))
    assert.equal((await issued(method)).code, code)
    await call('spaces.removeDevices', { space_id, device_ids: [device('Front Door')] })
    await until('the code has left the first lock', async () => (await holds('lock-1')).length === 0)
    assert.equal((await issued(method)).code, code)
    assert.equal(await unlocks(code, 'lock-2'), true)
    await call('spaces.addAcsEntrances', { space_id, acs_entrance_ids: [door('spa')] })
    const asks = await call('accessMethods.get', { access_method_id: card })
    assert.deepEqual([asks.is_issued, asks.is_ready_for_encoding], [false, true])
    await encode(card, 'eve')
    assert.equal(await opens('eve', 'spa'), true)
    await call('spaces.removeAcsEntrances', { space_id, acs_entrance_ids: [door('spa')] })

    await call('spaces.update', { space_id, name: 'Suite 103' })
    const [listed] = await call('spaces.list', { search: 'suite' })
    assert.deepEqual([listed.space_id, listed.device_count], [space_id, 2])
    assert.equal((await call('spaces.get', { space_key: 'unit-103' })).name, 'Suite 103')
    const related = await call('spaces.getRelated', { space_keys: ['unit-103'] })
    assert.deepEqual(ids(related.devices, 'display_name'), ['Back Door', 'Garage'])
    const covering = await call('accessGrants.list', { space_id })
    assert.deepEqual(ids(covering, 'access_grant_id'), [access_grant_id])
    await refused(call('spaces.delete', { space_id }), [409, 'space_has_access_grants'])
    await call('accessGrants.delete', { access_grant_id })
    await until('the code is gone', async () => (await holds('lock-2')).length === 0)
    await refused(call('spaces.get', { space_id: access_grant_id }), [404, 'space_not_found'])
  },

  async 'a key that opens a door from afar'() {
    const garage = await call('devices.get', { name: 'Garage' })
    assert.equal(garage.can_remotely_unlock, true)
    const grant = await call('accessGrants.create', {
      user_identity: { full_name: 'Fay' },
      device_ids: [garage.device_id],
      requested_access_methods: [{ mode: 'cloud_key' }],
      ends_at: hours(48),
    })
    const [access_method_id] = grant.access_method_ids
    await issued(access_method_id)
    const attempt = await call('accessMethods.unlockDoor', {
      access_method_id,
      acs_entrance_id: garage.device_id,
    })
    if (attempt !== skipped) {
      assert.deepEqual([attempt.action_type, attempt.status], ['UNLOCK_DOOR', 'success'])
      assert.equal(attempt.result.was_confirmed_by_device, true)
    }
    const unlocked = await please('count how often the lock was opened from afar', { lock: 'lock-3' })
    assert.equal(unlocked, attempt === skipped ? 0 : 1)
    await call('accessGrants.delete', { access_grant_id: grant.access_grant_id })
  },

  async 'people'() {
    const guest = await call('userIdentities.create', {
      full_name: 'Gil',
      user_identity_key: 'gil',
      email_address: 'gil@example.com',
      phone_number: '+4722334455',
    })
    const { user_identity_id } = guest
    const named = await call('userIdentities.get', { user_identity_key: 'gil' })
    assert.equal(named.user_identity_id, user_identity_id)
    await call('userIdentities.update', { user_identity_id, full_name: 'Gil Grim', phone_number: null })
    const found = await call('userIdentities.list', { search: 'grim' })
    assert.deepEqual(
      found.map(({ full_name, phone_number }) => [full_name, phone_number]),
      [['Gil Grim', null]],
    )
    const grant = await call('accessGrants.create', {
      user_identity_id,
      acs_entrance_ids: [door('pool')],
      requested_access_methods: [{ mode: 'card' }],
      ends_at: hours(48),
    })
    const open = await call('userIdentities.listAccessibleEntrances', { user_identity_id })
    if (open !== skipped) assert.deepEqual(ids(open, 'display_name'), ['pool'])
    const devices = await call('userIdentities.listAccessibleDevices', { user_identity_id })
    if (devices !== skipped) assert.deepEqual(devices, [])
    const grants = await call('accessGrants.list', { user_identity_id })
    assert.deepEqual(ids(grants, 'access_grant_id'), [grant.access_grant_id])
    const twin = await call('userIdentities.create', { user_identity_key: 'gil-too' })
    const merged = await call('userIdentities.merge', {
      user_identity_id,
      merged_user_identity_ids: [twin.user_identity_id],
    })
    if (merged !== skipped) {
      const { merged_user_identity_keys } = await call('userIdentities.get', { user_identity_id })
      assert.deepEqual(merged_user_identity_keys, ['gil-too'])
    }
    const held = [409, 'user_identity_has_access_grants']
    await refused(call('userIdentities.delete', { user_identity_id }), held)
    await call('accessGrants.delete', { access_grant_id: grant.access_grant_id })
    await call('userIdentities.delete', { user_identity_id })
    await refused(call('userIdentities.get', { user_identity_id }), [404, 'user_identity_not_found'])
    for (const group of ['accessGrants', 'userIdentities', 'devices']) {
      const unmanaged = await call(`${group}.unmanaged.list`)
      if (unmanaged !== skipped) assert.deepEqual(unmanaged, [])
    }
    assert.equal((await call('workspaces.get')).name, 'Home')
  },

  async 'page by page, and what happened'() {
    const pages = seam.createPaginator(seam.acs.entrances.list({ limit: 3 }))
    const [first, { hasNextPage, nextPageCursor }] = await pages.firstPage()
    assert.deepEqual([first.length, hasNextPage], [3, true])
    assert.deepEqual(
      ids(await pages.flattenToArray(), 'display_name'),
      ids(await call('acs.entrances.list'), 'display_name'),
    )
    const other = call('acs.entrances.list', { limit: 4, page_cursor: nextPageCursor })
    await refused(other, [400, 'mismatched_page_parameters'])

    const since = '2020-01-01T00:00:00Z'
    const events = await call('events.list', { since, event_type: 'access_method.issued', limit: 3 })
    assert.deepEqual(ids(events, 'event_type'), Array(3).fill('access_method.issued'))
    const [{ event_id, access_method_id }] = events
    const event = await call('events.get', { event_id })
    assert.equal(event.access_method_id, access_method_id)
    const both = await call('events.list', { between: [since, hours(1)], event_ids: ids(events, 'event_id') })
    assert.equal(both.length, 3)
  },

  async 'a simulated encoder that fails, and one that does not'() {
    const { acs_encoder_id } = encoder
    const grant = await call('accessGrants.create', {
      user_identity: { full_name: 'Hal' },
      acs_entrance_ids: [door('104')],
      requested_access_methods: [{ mode: 'card' }],
      reservation_key: 'stay-4',
      ends_at: hours(48),
    })
    const [access_method_id] = grant.access_method_ids
    await call('acs.encoders.simulate.nextCredentialEncodeWillFail', { acs_encoder_id })
    const failed = await call('accessMethods.encode', { access_method_id, acs_encoder_id }).then(
      () => assert.fail('it did not fail'),
      (error) => error,
    )
    assert.ok(client.isSeamActionAttemptFailedError(failed), String(failed))
    assert.equal(failed.code, 'no_credential_on_encoder')
    assert.equal(failed.actionAttempt.status, 'error')
    // Nothing was written, so it may be tried again.
    await call('acs.encoders.simulate.nextCredentialEncodeWillSucceed', { acs_encoder_id })
    const attempt = await call('accessMethods.encode', { access_method_id, acs_encoder_id })
    const { acs_credential_id } = attempt.result
    await refused(call('accessMethods.encode', { access_method_id, acs_encoder_id }), [
      400,
      'access_method_not_ready_for_encoding',
    ])
    await call('acs.encoders.simulate.nextCredentialScanWillSucceed', {
      acs_encoder_id,
      acs_credential_id_on_seam: acs_credential_id,
    })
    const scan = await call('acs.encoders.scanCredential', { acs_encoder_id })
    assert.equal(scan.result.acs_credential_on_seam.acs_credential_id, acs_credential_id)
    await please('take the card', { encoder: '1' })
    const attempts = await call('actionAttempts.list', { limit: 2 })
    assert.equal(attempts.length, 2)
  },

  async 'what is refused, as the client tells it'() {
    const stranger = new Seam({ apiKey: 'seam_test1_nobody', endpoint })
    const unknown = await refused(stranger.devices.list(), [401, 'unauthorized'])
    assert.ok(isSeamHttpUnauthorizedError(unknown))

    const requested_access_methods = [{ mode: 'card' }]
    const stay = {
      user_identity: { full_name: 'Ida' },
      acs_entrance_ids: [door('105')],
      requested_access_methods,
      reservation_key: 'stay-5',
      access_grant_key: 'ida',
      starts_at: hours(0),
      ends_at: hours(48),
    }
    await call('accessGrants.create', stay)
    const create = (change) => call('accessGrants.create', { ...stay, access_grant_key: undefined, ...change })
    const invalid = [
      ['ends_at', { ends_at: '2020-01-01T00:00:00Z' }],
      ['ends_at', { ends_at: null }],
      ['acs_entrance_ids', { acs_entrance_ids: [] }],
      ['user_identity_id', { user_identity: undefined }],
    ]
    for (const [parameter, change] of invalid) {
      const error = await refused(create(change), [400, 'invalid_input'])
      assert.ok(isSeamHttpInvalidInputError(error))
      assert.equal(error.getValidationErrorMessages(parameter).length, 1, error.message)
    }
    const nobody = '00000000-0000-4000-8000-000000000000'
    const table = [
      [400, 'invalid_input', { requested_access_methods: [{ mode: 'code', code: '12' }] }],
      [400, 'invalid_input', { requested_access_methods: [{ mode: 'whistle' }] }],
      [400, 'reservation_key_required', { reservation_key: undefined }],
      [400, 'reservation_key_not_supported', { acs_entrance_ids: [door('pool')] }],
      [404, 'acs_entrance_not_found', { acs_entrance_ids: [nobody] }],
      [404, 'device_not_found', { device_ids: [nobody] }],
      [404, 'space_not_found', { space_ids: [nobody] }],
      [404, 'user_identity_not_found', { user_identity: undefined, user_identity_id: nobody }],
      [409, 'access_grant_key_already_exists', { access_grant_key: 'ida' }],
      [409, 'reservation_entrance_change_requires_cleanup', { acs_entrance_ids: [door('104')] }],
      [409, 'reservation_joiner_entrance_set_conflict', { acs_entrance_ids: [door('104'), door('105')] }],
      [409, 'reservation_time_frames_must_overlap', { starts_at: hours(72), ends_at: hours(96) }],
    ]
    for (const [status, code, change] of table) {
      await refused(create(change), [status, code])
    }
    const { acs_encoder_id } = encoder
    const missing = [
      ['accessGrants.get', { access_grant_id: nobody }, 'access_grant_not_found'],
      ['accessGrants.delete', { access_grant_id: nobody }, 'access_grant_not_found'],
      ['accessMethods.encode', { access_method_id: nobody, acs_encoder_id }, 'access_method_not_found'],
      ['acs.encoders.get', { acs_encoder_id: nobody }, 'acs_encoder_not_found'],
      ['acs.systems.get', { acs_system_id: nobody }, 'acs_system_not_found'],
      ['actionAttempts.get', { action_attempt_id: nobody }, 'action_attempt_not_found'],
      ['events.get', { event_id: nobody }, 'event_not_found'],
      // What there is elsewhere, but not here.
      ['connectWebviews.list', {}, 'not_found'],
    ]
    for (const [path, params, code] of missing) {
      await refused(call(path, params), [404, code])
    }
    await refused(call('spaces.create', { name: 'Twice', space_key: 'unit-103' }), [
      409,
      'space_key_already_exists',
    ])
    await call('userIdentities.create', { email_address: 'ida@example.com' })
    await refused(call('userIdentities.create', { email_address: 'ida@example.com' }), [
      409,
      'user_identity_already_exists',
    ])
  },

  async 'what happens is told to a receiver, who believes it, over a restart of the cloud'() {
    // It fails at first, as receivers do.
    const came = []
    let refuses = 1
    const receiver = createServer((request, response) => {
      let body = ''
      request.on('data', (chunk) => (body += chunk))
      request.on('end', () => {
        came.push({ headers: request.headers, body })
        response.writeHead(refuses-- > 0 ? 503 : 204).end()
      })
    })
    await new Promise((listening) => receiver.listen(0, '127.0.0.1', listening))
    const url = `http://127.0.0.1:${receiver.address().port}/events`
    const { webhook_id, secret, event_types } = await call('webhooks.create', { url })
    assert.match(secret, /^whsec_/)
    assert.deepEqual(event_types, ['*'])

    const { access_grant_id } = await call('accessGrants.create', {
      user_identity: { full_name: 'Wil' },
      acs_entrance_ids: [door('pool')],
      requested_access_methods: [{ mode: 'card' }],
      ends_at: hours(48),
    })
    await until('the receiver has refused', () => came.length > 0)
    await please('restart the cloud')
    await call('accessGrants.delete', { access_grant_id })

    // Each in its order, and none more often than it was refused.
    const events = (await call('events.list', { since: '2020-01-01T00:00:00Z', access_grant_id })).reverse()
    const owed = ids(events, 'event_id')
    const ours = () => came.filter(({ body }) => owed.includes(JSON.parse(body).event_id))
    await until('all of it was told', () => new Set(ours().map(({ body }) => JSON.parse(body).event_id)).size === owed.length)
    const told = ours().map(({ headers, body }) => {
      const event = new client.SeamWebhook(secret).verify(body, headers)
      assert.deepEqual(event, JSON.parse(body))
      return event
    })
    const once = told.filter(({ event_id }, at) => told.findIndex((other) => other.event_id === event_id) === at)
    assert.deepEqual(
      once.map(({ event_type }) => event_type),
      [
        'access_grant.created',
        'access_method.created',
        'access_method.card_encoding_required',
        'access_grant.deleted',
        'access_method.deleted',
      ],
    )
    for (const event of once) assert.deepEqual(event, events.find(({ event_id }) => event_id === event.event_id))
    const [first] = ours()
    const again = ours().filter(({ body }) => body === first.body)
    assert.ok(again.length > 1, 'what was refused comes again')
    assert.equal(new Set(again.map(({ headers }) => headers['svix-id'])).size, 1)

    // Nobody else can have said it, nor said something else.
    const verify = (key, body, headers) => () => new client.SeamWebhook(key).verify(body, headers)
    assert.throws(verify(secret, first.body.replace('created', 'deleted'), first.headers))
    assert.throws(verify('whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=', first.body, first.headers))

    await call('webhooks.update', { webhook_id, event_types: ['access_grant.created'] })
    const [kept] = await call('webhooks.list')
    assert.deepEqual([kept.webhook_id, kept.event_types], [webhook_id, ['access_grant.created']])
    await call('webhooks.delete', { webhook_id })
    await refused(call('webhooks.get', { webhook_id }), [404, 'webhook_not_found'])
    receiver.close()
  },

  async 'what goes wrong at the property'() {
    // Nothing is said to be there that is not.
    const front = () => call('devices.get', { name: 'Front Door' })
    await please('unplug the lock', { lock: 'lock-1' })
    const grant = await call('accessGrants.create', {
      user_identity: { full_name: 'Jo' },
      device_ids: [(await front()).device_id],
      requested_access_methods: [{ mode: 'code' }],
      ends_at: hours(48),
    })
    const { access_grant_id } = grant
    const [access_method_id] = grant.access_method_ids
    const away = await until('the lock is seen to be away', async () => {
      const device = await front()
      return !device.properties.online && device
    })
    assert.equal(away.can_program_online_access_codes, true)
    assert.deepEqual(ids(away.errors, 'error_code'), ['device_offline'])
    const waiting = await call('accessMethods.get', { access_method_id })
    assert.deepEqual([waiting.is_issued, waiting.code], [false, undefined])
    assert.deepEqual(ids(waiting.pending_mutations, 'mutation_code'), ['provisioning_access'])
    const lacking = await call('accessGrants.get', { access_grant_id })
    assert.deepEqual(ids(lacking.warnings, 'warning_code'), ['underprovisioned_access'])
    await please('plug the lock in', { lock: 'lock-1' })
    const { code } = await issued(access_method_id)
    assert.equal(await unlocks(code, 'lock-1'), true)

    // Nor to be gone.
    await please('unplug the lock', { lock: 'lock-1' })
    await call('accessGrants.delete', { access_grant_id })
    await until('the lock is seen to be away', async () => !(await front()).properties.online)
    const leaving = await call('accessGrants.get', { access_grant_id })
    assert.deepEqual(ids(leaving.warnings, 'warning_code'), ['being_deleted', 'overprovisioned_access'])
    const [method] = await call('accessMethods.list', { access_grant_id })
    assert.deepEqual(ids(method.pending_mutations, 'mutation_code'), ['revoking_access'])
    await please('plug the lock in', { lock: 'lock-1' })
    await gone('accessGrants.get', { access_grant_id })
    assert.equal(await unlocks(code, 'lock-1'), false)

    // The site has the last word: no code of its is good for that long.
    const forbidden = await call('accessGrants.create', {
      user_identity: { full_name: 'Kim' },
      device_ids: [away.device_id],
      requested_access_methods: [{ mode: 'code' }],
      ends_at: hours(400 * 24),
    })
    await until('the site has refused', async () => {
      const [{ errors, is_issued }] = await call('accessMethods.list', {
        access_grant_id: forbidden.access_grant_id,
      })
      assert.equal(is_issued, false)
      return errors.some(({ error_code }) => error_code === 'access_not_provisioned')
    })
    await call('accessGrants.delete', { access_grant_id: forbidden.access_grant_id })

    // A bridge that is away, and a room that is no more.
    const systemErrors = async () => {
      const { errors } = await call('acs.systems.get', { acs_system_id: system.acs_system_id })
      return ids(errors, 'error_code')
    }
    await please('switch the bridge off')
    await until('the bridge is seen to be away', async () =>
      (await systemErrors()).includes('bridge_disconnected'),
    )
    assert.deepEqual(ids((await front()).errors, 'error_code'), ['bridge_disconnected'])
    await please('wall room 105 up, and switch the bridge on')
    await until('the bridge is back', async () => (await systemErrors()).length === 0)
    const errors = await until('the room is seen to be gone', async () => {
      const { errors } = await call('acs.entrances.get', { acs_entrance_id: door('105') })
      return errors.length > 0 && errors
    })
    assert.deepEqual(ids(errors, 'error_code'), ['entrance_removed'])
  },
}

const only = process.argv.slice(2)
for (const [flow, walk] of Object.entries(flows)) {
  if (only.length > 0 && !only.includes(flow)) continue
  await walk()
  say({ flow })
}
process.exit(0)
