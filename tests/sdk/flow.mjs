// A guest's card by the JavaScript SDK: who, where and when become a card on the encoder.

import { SeamHttp } from '@seamapi/http'

const seam = new SeamHttp({ apiKey: process.env.API_KEY, endpoint: process.env.API })

const [room] = await seam.acs.entrances.list({ search: '101' })
const [system] = await seam.acs.systems.list()
const [encoder] = await seam.acs.encoders.list({ acs_system_ids: [system.acs_system_id] })
const guest = await seam.userIdentities.create({ full_name: 'Jane Doe', user_identity_key: 'jane' })
const grant = await seam.accessGrants.create({
  user_identity_id: guest.user_identity_id,
  acs_entrance_ids: [room.acs_entrance_id],
  requested_access_methods: [{ mode: 'card' }],
  reservation_key: 'stay-1',
  ends_at: new Date(Date.now() + 2 * 24 * 60 * 60 * 1000).toISOString(),
})
const [access_method_id] = grant.access_method_ids
// Waits until the card was laid down and written.
const attempt = await seam.accessMethods.encode({ access_method_id, acs_encoder_id: encoder.acs_encoder_id })
const method = await seam.accessMethods.get({ access_method_id })
const events = await seam.events.list({
  since: '2020-01-01T00:00:00Z',
  access_grant_id: grant.access_grant_id,
})
console.log(
  JSON.stringify({
    status: attempt.status,
    credential: attempt.result.external_type,
    is_issued: method.is_issued,
    events: events.map((event) => event.event_type),
  }),
)
