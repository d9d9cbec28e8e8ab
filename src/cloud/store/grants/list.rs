//! Lists of grants and of methods.

use crate::{
    model::{AccessGrantId, AccessMethodId},
    store::StoreError,
};

use super::{
    super::{
        Listed, Page, Tenant,
        question::Question,
        rows::{id, id_list},
    },
    Grant, GrantFilter, GrantName, Method, MethodFilter,
};

impl Tenant<'_> {
    pub(crate) fn grants(&mut self, filter: &GrantFilter, page: Page) -> Result<Listed<Grant>, StoreError> {
        let question = Question::of("SELECT g.rowid AS place, g.access_grant_id FROM access_grant g", "g")
            .among(
                "g.access_grant_id IN (SELECT value FROM json_each(?#))",
                id_list(filter.ids.as_deref()),
            )
            .within("g.access_grant_key IS ?#", filter.key.clone())
            .among("g.user_identity_id = ?#", filter.identity.clone())
            .among(&format!("g.access_grant_id IN ({OF_DEVICE})"), filter.device.clone())
            .among(&format!("g.access_grant_id IN ({OF_ENTRANCE})"), filter.entrance.clone())
            // A system may be all there is: its grants are met on the way.
            .and(
                "(EXISTS (SELECT 1 FROM grant_entrance o JOIN acs_entrance USING(acs_entrance_id)
                   WHERE o.access_grant_id = g.access_grant_id AND acs_system_id = ?#)
                  OR EXISTS (SELECT 1 FROM grant_space o JOIN space_entrance USING(space_id)
                   JOIN acs_entrance USING(acs_entrance_id)
                   WHERE o.access_grant_id = g.access_grant_id AND acs_system_id = ?#))",
                filter.system.clone(),
            )
            .among(
                "g.access_grant_id IN (SELECT access_grant_id FROM grant_space WHERE space_id = ?#)",
                filter.space.clone(),
            )
            .within("g.reservation_key = ?#", filter.reservation_key.clone())
            .among(
                "g.access_grant_id IN (
                   SELECT access_grant_id FROM space JOIN grant_space USING(space_id) WHERE customer_key = ?#)",
                filter.customer.clone(),
            );
        let listed = self.listed(question, page, |row| id::<AccessGrantId>(row, "access_grant_id"))?;
        let next = listed.next;
        let mut rows = Vec::with_capacity(listed.rows.len());
        for grant in listed.rows {
            rows.extend(self.grant(&GrantName::Id(grant))?);
        }
        Ok(Listed { rows, next })
    }

    pub(crate) fn methods(
        &mut self,
        filter: &MethodFilter,
        page: Page,
    ) -> Result<Listed<Method>, StoreError> {
        let question = Question::of("SELECT m.rowid AS place, m.access_method_id FROM access_method m", "m")
            .among("m.access_grant_id = ?#", filter.grant.map(|id| id.to_string()))
            .among(
                &format!(
                    "m.mode = 'card' AND m.access_grant_id IN ({OF_ENTRANCE})
                     AND NOT EXISTS (SELECT 1 FROM code_method k WHERE k.access_method_id = m.access_method_id)
                     AND EXISTS (
                       SELECT 1 FROM acs_entrance e
                       WHERE e.acs_entrance_id = ?# AND e.acs_system_id = m.acs_system_id)"
                ),
                filter.entrance.clone(),
            )
            // A code is also for a device that it has not gone from yet.
            .among(
                &format!(
                    "m.access_method_id IN (
                       SELECT access_method_id FROM access_method WHERE access_grant_id IN ({OF_DEVICE})
                       UNION SELECT access_method_id FROM desired_slot WHERE device_id = ?#)
                     AND CASE WHEN m.mode IN ('code', 'card') THEN EXISTS (
                           SELECT 1 FROM code_method k, json_each(k.device_ids)
                           WHERE k.access_method_id = m.access_method_id AND value = ?#) ELSE m.access_grant_id IN ({OF_DEVICE}) END"
                ),
                filter.device.clone(),
            )
            .among(
                "m.access_grant_id IN (SELECT access_grant_id FROM grant_space WHERE space_id = ?#)",
                filter.space.clone(),
            );
        let listed = self.listed(question, page, |row| id::<AccessMethodId>(row, "access_method_id"))?;
        let next = listed.next;
        let mut rows = Vec::with_capacity(listed.rows.len());
        for method in listed.rows {
            rows.extend(self.method(method)?);
        }
        Ok(Listed { rows, next })
    }
}

/// The grants that lead to a device or a door, alone or with a space.
const OF_DEVICE: &str = "
    SELECT access_grant_id FROM grant_device WHERE device_id = ?#
    UNION SELECT access_grant_id FROM space_device JOIN grant_space USING(space_id) WHERE device_id = ?#";
const OF_ENTRANCE: &str = "
    SELECT access_grant_id FROM grant_entrance WHERE acs_entrance_id = ?#
    UNION SELECT access_grant_id FROM space_entrance JOIN grant_space USING(space_id) WHERE acs_entrance_id = ?#";
