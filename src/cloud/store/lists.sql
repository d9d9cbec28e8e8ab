-- What lists are found by. Every index ends with the row's own number, so one of these holds its rows in the order of
-- their making, and a later page begins in the midst of it. Those of whole workspaces are of an expression, so that only
-- lists take them: nobody could tell SQLite that half the table may be of one workspace, and that any other index is
-- better.
CREATE INDEX access_grant_of_workspace ON access_grant((workspace_id || ''));
CREATE INDEX user_identity_of_workspace ON user_identity((workspace_id || ''));
CREATE INDEX user_identity_of_customer ON user_identity(customer_key) WHERE customer_key IS NOT NULL;
CREATE INDEX action_attempt_of_workspace ON action_attempt((workspace_id || ''));
CREATE INDEX scan_attempt_of_workspace ON scan_attempt((workspace_id || ''));
CREATE INDEX unlock_attempt_of_workspace ON unlock_attempt((workspace_id || ''));
CREATE INDEX unlock_attempt_of_device ON unlock_attempt(device_id);
CREATE INDEX acs_entrance_of_workspace ON acs_entrance((workspace_id || ''));
CREATE INDEX acs_encoder_of_workspace ON acs_encoder((workspace_id || ''));
CREATE INDEX device_of_workspace ON device((workspace_id || ''));
CREATE INDEX space_of_workspace ON space((workspace_id || ''));
CREATE INDEX space_of_customer ON space(customer_key) WHERE customer_key IS NOT NULL;
CREATE INDEX space_of_entrance ON space_entrance(acs_entrance_id);
CREATE INDEX grant_of_entrance ON grant_entrance(acs_entrance_id);

-- What happened to one thing; the grant's own index is there already.
CREATE INDEX event_by_method ON event(access_method_id, occurred_at) WHERE access_method_id IS NOT NULL;
CREATE INDEX event_by_system ON event(acs_system_id, occurred_at) WHERE acs_system_id IS NOT NULL;
CREATE INDEX event_by_entrance ON event(acs_entrance_id, occurred_at) WHERE acs_entrance_id IS NOT NULL;
CREATE INDEX event_by_encoder ON event(acs_encoder_id, occurred_at) WHERE acs_encoder_id IS NOT NULL;
CREATE INDEX event_by_space ON event(space_id, occurred_at) WHERE space_id IS NOT NULL;
CREATE INDEX event_by_device ON event(device_id, occurred_at) WHERE device_id IS NOT NULL;

-- What was ordered for a card, and the cards of a system that still open.
CREATE INDEX acs_credential_of_system ON acs_credential(acs_system_id, ends_at);
CREATE INDEX acs_credential_by_issue ON acs_credential(issued_at);

-- What a job or a stay is still needed for.
CREATE INDEX slot_work_of_job ON slot_work(job_id) WHERE job_id IS NOT NULL;
CREATE INDEX ordered_checkout_of_stay ON ordered_checkout(workspace_id, reservation_key);
CREATE INDEX bridge_order_cancels ON bridge_order(bridge_id, job_id) WHERE what = 'cancel' AND over_at IS NULL;
