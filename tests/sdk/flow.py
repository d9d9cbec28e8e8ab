"""A guest's card by the Python SDK: who, where and when become a card on the encoder."""

import json
import os
from datetime import datetime, timedelta, timezone

from seam import Seam

seam = Seam(api_key=os.environ["API_KEY"], endpoint=os.environ["API"])

room = seam.acs.entrances.list(search="101")[0]
system = seam.acs.systems.list()[0]
encoder = seam.acs.encoders.list(acs_system_ids=[system.acs_system_id])[0]
guest = seam.user_identities.create(full_name="Jane Doe", user_identity_key="jane")
grant = seam.access_grants.create(
    user_identity_id=guest.user_identity_id,
    acs_entrance_ids=[room.acs_entrance_id],
    requested_access_methods=[{"mode": "card"}],
    reservation_key="stay-1",
    ends_at=(datetime.now(timezone.utc) + timedelta(days=2)).isoformat(),
)
# Waits until the card was laid down and written.
attempt = seam.access_methods.encode(
    access_method_id=grant.access_method_ids[0],
    acs_encoder_id=encoder.acs_encoder_id,
)
method = seam.access_methods.get(access_method_id=grant.access_method_ids[0])
events = seam.events.list(since="2020-01-01T00:00:00Z", access_grant_id=grant.access_grant_id)
print(
    json.dumps(
        {
            "status": attempt.status,
            "credential": attempt.result.external_type,
            "is_issued": method.is_issued,
            "events": [event.event_type for event in events],
        }
    )
)
