//! The threat model: who is trusted with what, what each attacker can do, and what none of them can.
//!
//! This room holds no code. Each claim names the test that shows it, by its file and its name; what is not defended
//! against is said as plainly at the end. How the defences work is told where they are: [`protocol::signing`],
//! [`protocol::enrol`], [`seal`], [`queue`].
//!
//! [`protocol::signing`]: crate::protocol::signing
//! [`protocol::enrol`]: crate::protocol::enrol
//! [`seal`]: crate::seal
//! [`queue`]: crate::queue
//!
//! # What is worth attacking
//! Doors (a card, a code, an unlock that nobody granted), the guarantee (a job lost, done twice, or reported as what it
//! was not), people's data (names, stays, codes, card numbers), and whether any of it works when it is needed.
//!
//! # Who is trusted with what
//! | who | is trusted with | is not trusted with |
//! | --- | --- | --- |
//! | the site (its owner) | the last word on what is done there: the site policy, pairing, verdicts on doubts | other sites |
//! | root and the agent's user on its host | everything of this site: keys, queue, lines to the locks | other sites, the cloud |
//! | the cloud, as a program | what should be true at each site, within the site policy; the time | what the site forbids; what a device holds |
//! | the cloud's operator | the same, and the API keys of its workspaces | the same |
//! | whoever has a workspace's API key | what its grants say | other workspaces |
//! | the desk (people with the agent's socket) | orders within the site policy, verdicts, pauses; each with a name in the audit | keys and secrets |
//! | the lock server | the truth about its locks; it is believed in what it says of them | anything else of the site or the cloud |
//! | the network, and a proxy that inspects TLS | carrying bytes, or not | reading as little as can be; saying anything |
//! | a relay or certificate that was stolen | nothing | |
//!
//! # Somebody on the way
//! A stranger on the network, a proxy that inspects TLS, a stolen relay: the strongest of them holds a certificate that
//! the bridge trusts and the bridge's own TLS key, so that everything is said through their hands in the clear. They read
//! what passes, and can be in the way. They can do no more:
//!
//! | they cannot | shown by |
//! | --- | --- |
//! | alter a frame | `tests/link_hub/mitm.rs`: `an_altered_frame_is_not_believed` |
//! | alter one character of body, signature or key name | `src/protocol/signing/tests.rs`: `a_packet_with_any_character_altered_is_not_believed` |
//! | invent a frame | `tests/link_hub/mitm.rs`: `an_invented_frame_is_not_believed` |
//! | take the signature off | `tests/link_hub/mitm.rs`: `a_frame_without_its_signature_is_not_believed` |
//! | leave a frame out, a revocation for example | `tests/link_hub/mitm.rs`: `a_frame_that_is_left_out_is_missed` |
//! | have a frame done twice | `tests/link_hub/mitm.rs`: `a_frame_that_comes_twice_is_noticed` |
//! | move a frame behind another | `tests/link_hub/mitm.rs`: `a_frame_that_comes_late_is_noticed` |
//! | send a frame back to whoever said it | `tests/link_hub/mitm.rs`: `a_frame_that_comes_back_to_its_sender_is_not_believed` |
//! | use a frame of an earlier conversation | `tests/link_hub/mitm.rs`: `a_frame_of_an_earlier_conversation_is_not_believed` |
//! | use a frame that was meant for another bridge | `src/protocol/signing/tests.rs`: `a_message_for_another_bridge_is_misdirected` |
//! | hold a frame back and have it count later | `src/protocol/signing/tests.rs`: `a_message_counts_up_to_and_with_the_instant_that_it_names` |
//! | hold back all that is signed behind living pings, unnoticed | `tests/link_hub/mitm.rs`: `frames_that_are_kept_back_behind_living_pings_are_missed` |
//! | put their own keys into the cloud's answer to a pairing | `src/protocol/enrol/tests.rs`: `an_answer_by_a_key_that_is_not_the_clouds_is_not_believed` |
//! | have an answer to another bridge's request taken for ours | `src/protocol/enrol/tests.rs`: `an_answer_to_other_keys_is_named` |
//! | pass for the cloud with a certificate that the bridge does not trust | `tests/link_hub/link.rs`: `a_certificate_that_cannot_be_trusted_is_named_with_its_reason` |
//! | inspect TLS unnoticed, or have the bridge work round it | `tests/link_net/stories.rs`: `inspection_is_named_with_who_does_it_and_never_worked_round` |
//! | stand in for a cloud whose key is pinned, whoever vouches for them | `tests/link_net/stories.rs`: `a_key_that_is_not_pinned_is_refused_whoever_vouches_for_it` |
//! | send the bridge away for good by asking it to come later | `tests/link_net/stories.rs`: `a_wish_to_be_asked_later_is_honoured_and_bounded` |
//! | take the cloud's keys away from the bridge by a welcome that names none | `tests/pairing/renewed.rs`: `a_welcome_that_names_no_key_of_the_cloud_takes_none_away` |
//! | turn the host's clock into a way to revive what has expired, once the cloud has spoken | `src/seams/trusted.rs`: `a_jump_of_the_host_clock_moves_no_deadline_once_the_cloud_has_spoken` |
//!
//! # A stranger at the cloud's door
//! | they cannot | shown by |
//! | --- | --- |
//! | learn more than the cloud's public keys and one short answer without a bridge's certificate | `tests/link_hub/hub.rs`: `strangers_get_one_short_answer` |
//! | keep a place by saying nothing | `tests/link_hub/hub.rs`: `who_says_nothing_is_dropped_at_every_stage` |
//! | take places without bound | `tests/link_hub/hub.rs`: `a_crowd_of_silent_strangers_is_bounded_and_passes` |
//! | bring it down with noise | `tests/link_hub/hub.rs`: `noise_before_tls_and_before_http_harms_nobody` |
//! | have a large frame parsed | `tests/link_hub/hub.rs`: `the_largest_frame_is_taken_and_a_larger_one_is_refused_by_name` |
//! | break a parser | `tests/corpora.rs`: `no_input_of_a_corpus_breaks_its_target` |
//! | guess a pairing code, or learn by guessing that there is one | `tests/enrol/pair.rs`: `guessing_is_limited_and_a_right_code_is_not_looked_at_meanwhile`, `a_code_that_is_over_cannot_be_told_from_one_that_never_was` |
//! | be taken in without a person who compared, even with a code | `tests/enrol/pair.rs`: `a_site_is_taken_in_when_a_person_has_compared_and_said_yes` |
//! | pair with keys other than those that a person announced | `tests/enrol/pair.rs`: `keys_that_were_announced_need_no_answer_and_others_are_not_taken` |
//! | get anything into a certificate that they wish for | `tests/enrol/pair.rs`: `nothing_of_what_a_request_for_a_certificate_wishes_is_granted` |
//! | read a pairing code out of the cloud's database | `tests/enrol/pair.rs`: `a_code_is_kept_as_nothing_that_gives_it_back` |
//! | renew a bridge's certificate without its old key | `tests/enrol/renew.rs`: `who_has_not_the_old_key_learns_nothing_and_gets_nothing` |
//! | prolong a certificate by sending a renewal again | `tests/enrol/renew.rs`: `a_renewal_that_is_sent_again_by_whomever_prolongs_nothing` |
//!
//! # A bridge that is not what it was
//! Its host was taken over, or its keys were copied. It is the site then: it can lie about its own doors and cards.
//!
//! | it cannot | shown by |
//! | --- | --- |
//! | end another bridge's job | `src/cloud/store/bridges/tests.rs`: `a_bridge_ends_no_order_of_another_bridge` |
//! | see or touch another workspace, nor can whoever has another workspace's API key | `src/cloud/store/tests.rs`: `another_workspace_sees_and_touches_nothing` |
//! | stay unnoticed beside the real one: the later connection ends the earlier one | `tests/link_hub/hub.rs`: `a_newer_connection_fences_the_older_one_and_takes_over_its_orders` |
//! | make or take back a grant of another site's doors | `src/cloud/store/tests/desired.rs`: `what_a_desk_made_and_does_not_fit_is_taken_over_and_says_so`, `a_grant_that_a_desk_took_back_is_gone_and_one_of_another_site_is_not` |
//! | take over the card of another grant | `src/cloud/store/tests/desired.rs`: `a_desk_cannot_take_the_card_of_another_grant` |
//! | pass over a report | `tests/link_hub/hub.rs`: `a_gap_in_the_reports_and_one_above_the_limit_are_refused_by_name` |
//! | have the cloud hold without bound what it sends | `tests/link_hub/hub.rs`: `a_gap_in_the_reports_and_one_above_the_limit_are_refused_by_name` |
//! | go on, come back or renew once it is revoked | `tests/enrol/revoke.rs`: `a_revoked_bridge_is_gone_within_a_second_and_cannot_come_back` |
//! | keep a connection beyond the end of the certificate with which it was made | `tests/enrol/revoke.rs`: `a_connection_counts_no_longer_than_the_certificate_with_which_it_was_made` |
//! | take other bridges' keys for its own | `tests/enrol/renew.rs`: `keys_are_never_given_twice_and_those_of_another_bridge_not_at_all` |
//! | slow other bridges down by not reading | `tests/enrol/revoke.rs`: `a_bridge_that_does_not_read_costs_another_nothing` |
//!
//! # A cloud, or its operator, who wants too much
//! The cloud decides who gets in, that is what it is for. The site decides how far it may go, whoever signed:
//!
//! | it cannot | shown by |
//! | --- | --- |
//! | order what the site forbids | `tests/road/ledger.rs`: `what_the_site_forbids_is_refused_by_name_before_any_byte` |
//! | have a card made that nobody at the site has confirmed, where the site asks for that | `tests/road/ledger.rs`: `a_card_from_the_cloud_is_made_only_when_the_desk_has_confirmed_it_where_the_site_asks_for_that` |
//! | have such a card made by waiting, by a restart, or by the site's asking for it no longer | `tests/queue_confirm.rs`: `a_card_from_the_cloud_waits_for_a_persons_word_through_restarts_and_is_then_made_once`, `a_card_that_nobody_confirms_before_its_deadline_is_refused_by_name`, `cards_that_wait_already_need_a_word_once_the_site_asks_for_it_and_keep_needing_it` |
//! | have a card made for a room that the site never issues from afar | `src/queue/limits.rs`: `a_room_never_issued_is_refused_wherever_it_stands_on_the_card_and_by_its_whole_name_only` |
//! | have more cards made in an hour than the site allows | `tests/queue_jobs.rs`: `the_limit_of_cards_an_hour_is_the_sites_and_is_audited` |
//! | have a card made for longer than the site allows | `src/queue/limits.rs`: `a_window_that_is_too_long_or_has_no_end_is_refused` |
//! | open a door from afar where the site did not say so | `tests/road/locks.rs`: `a_door_is_opened_from_afar_only_where_the_site_allows_it` |
//! | let one guest into another one's stay | `tests/road/ledger.rs`: `a_join_into_another_stay_is_refused_before_any_byte` |
//! | keep a code alive beyond its end by being away | `tests/road/locks.rs`: `a_pin_comes_when_its_lead_begins_opens_and_goes_at_its_end_through_a_kill_while_the_cloud_is_away` |
//!
//! # People at the desk
//! | they cannot | shown by |
//! | --- | --- |
//! | change anything without a name | `src/agent/answers.rs`: `whoever_has_no_name_that_an_audit_can_hold_is_refused` |
//! | speak with the agent without being its owner or of its group | `tests/admin.rs`: `the_socket_is_for_owner_and_group_and_goes_with_the_agent` |
//! | settle a doubt twice | `tests/queue_jobs.rs`: `a_doubt_is_settled_once_and_reported_as_a_second_revision` |
//! | have a card written once more by not knowing that it is | `src/queue/cards.rs`: `a_card_that_is_written_or_at_work_is_refused_by_name_and_one_that_failed_is_not` |
//! | read names in what the program shows, but those of the grants that they ask for | `tests/road/desk.rs`: `a_person_sees_what_was_done_what_was_not_and_what_is_in_doubt_and_no_name` |
//!
//! # A lock server that lies, breaks off, or is somebody else's too
//! It is believed in what it says of its locks. It cannot make the agent say what it did not hear:
//!
//! | it cannot | shown by |
//! | --- | --- |
//! | make silence look like a failure that may be tried again | `tests/road/kill.rs`: `a_command_that_left_without_an_answer_is_unknown_exactly_once_with_no_second_frame` |
//! | change a room behind our back and have a card join there | `tests/queue_ledger.rs`: `on_a_shared_system_a_live_card_of_the_stay_opens_the_way_for_one_join` |
//! | hold up the site's other systems | `tests/road/locks.rs`: `a_lock_that_is_away_stops_nobody_else_and_gets_its_entry_once_when_it_is_back` |
//!
//! # A disk that was stolen or copied
//! Names, codes, lock keys and orders are sealed at rest with a key from a file or a credential of the service manager.
//! Without that key:
//!
//! | they cannot | shown by |
//! | --- | --- |
//! | find a name, an address or a key in databases, logs or output | `tests/road/secrets.rs`: `databases_logs_and_output_show_no_name_no_address_and_no_key` |
//! | find names of guests and stays in the agent's queue | `tests/queue_jobs.rs`: `names_of_guests_and_stays_are_nowhere_in_the_files`, `src/queue/desired.rs`: `no_name_lies_open_in_the_file` |
//! | find names of guests and card numbers in the cloud's database | `src/cloud/store/tests.rs`: `names_of_guests_and_card_numbers_are_not_in_the_file` |
//! | read an order in the cloud's database | `src/cloud/store/bridges/tests.rs`: `the_body_of_an_order_is_sealed` |
//! | alter a sealed value, or move it to another place | `src/seal.rs`: `a_sealed_value_opens_in_its_place_only_and_shows_nothing`, `every_flipped_bit_and_every_cut_is_refused` |
//!
//! A key file that others may read is refused (`src/seal.rs`:
//! `a_key_file_is_made_once_and_refused_when_others_may_read_it`). Whoever takes the key along with the disk has the
//! site.
//!
//! # A backup that is put back, and hardware that comes back
//! | it cannot | shown by |
//! | --- | --- |
//! | do again what the agent did after the backup | `tests/backup.rs`: `what_an_older_backup_forgot_is_not_done_again` |
//! | do again what the cloud never heard the end of | `tests/backup.rs`: `an_order_whose_end_the_cloud_never_heard_of_is_not_done_again_either` |
//! | order twice what a cloud that was set back forgot | `tests/backup.rs`: `a_cloud_that_was_set_back_is_told_how_things_ended_and_orders_nothing_twice` |
//! | pass for a memory that went on, however often it is started before it meets its cloud | `tests/queue_restored_cloud/main.rs`: `an_old_memory_is_known_however_often_it_was_opened_before_it_met_its_cloud` |
//! | do again what both sides forgot, where the bridge's copy was put back as it should be or its cloud finds out | `tests/queue_restored_cloud/main.rs`: `what_a_memory_forgot_that_was_set_back_is_in_doubt_when_a_cloud_that_was_too_orders_it_again` |
//! | have new hardware do what a cloud that was put back had handed to the old | `tests/queue_restored_cloud/main.rs`: `a_memory_that_is_new_is_not_given_what_a_cloud_that_was_put_back_had_handed_to_another` |
//! | have new hardware do what the old was given, where nothing of it was acknowledged | `tests/queue_restored_cloud/again.rs`: `new_hardware_is_not_given_what_the_old_one_may_hold_though_it_acknowledged_nothing` |
//! | do again what several restores and new hardware between them forgot | `tests/queue_restored_cloud/again.rs`: `a_cloud_that_is_put_back_twice_with_new_hardware_between_does_nothing_twice` |
//! | call cancelled what was done and is forgotten | `tests/queue_restored_cloud/again.rs`: `a_cancel_of_what_may_have_been_done_and_be_forgotten_is_not_answered_with_cancelled` |
//! | do again what was forgotten while the cloud's clock was ahead | `tests/queue_restored_cloud/again.rs`: `what_was_forgotten_under_a_clock_far_ahead_is_in_doubt_also_after_the_clock_was_put_right` |
//! | pass for a memory that went on after a snapshot with the running agent in it was resumed | `tests/queue_restored_cloud/main.rs`: `an_old_memory_with_its_running_agent_is_known_although_it_was_opened_again_before_it_met_its_cloud` |
//! | let a card join a room of which it remembers too little | `tests/queue_ledger.rs`: `a_memory_out_of_date_makes_every_room_uncertain_until_a_live_card_proves_it` |
//! | have a copied host speak for the bridge beside the real one | `tests/link_hub/road.rs`: `a_second_agent_with_the_same_keys_fences_the_first` |
//! | have old hardware get orders beside the new | `tests/road/trust.rs`: `new_hardware_goes_on_with_the_ledger_where_the_old_one_was_and_the_old_one_is_turned_away` |
//! | bring a bridge back that was revoked after the backup, or shut one out that renewed, where the replaced database can be read | `tests/enrol/restore.rs`: `what_was_revoked_or_renewed_since_a_backup_stays_so_when_the_backup_is_put_back` |
//! | bring it back unasked where it cannot | `tests/enrol/restore.rs`: `without_the_database_that_knew_no_bridge_comes_in_before_a_person_has_vouched_for_it`, `a_database_older_than_the_backup_vouches_for_nobody_and_still_keeps_out_whom_it_knows_as_revoked` |
//! | have cards that are out open no more for it | `tests/road/trust.rs`: `a_cloud_put_back_to_before_a_revocation_keeps_the_bridge_out_and_asks_a_person_where_it_cannot_know` |
//! | renew once other hardware has taken its place | `tests/enrol/renew.rs`: `a_bridge_that_was_revoked_or_replaced_cannot_renew` |
//! | run two agents on one queue | `tests/road/alone.rs`: `a_second_agent_on_the_same_queue_refuses_and_the_card_at_work_is_still_written_once` |
//!
//! # What is not defended against
//! - **Root, or the agent's user, on the agent's host.** They have the keys and the lines to the locks. The site policy
//!   is enforced by the program that they control.
//! - **A cloud operator within the site policy.** Whatever the policy allows, the cloud can order. The defaults forbid
//!   remote unlock; limits on cards and validity are the site's to set.
//! - **Availability.** Whoever is on the way, or runs the cloud, the host or the lock server, can stop work. The promise is
//!   that it shows, and that nothing is lost or done twice for it.
//! - **Secrecy towards a proxy that inspects TLS, where the site lets it.** Frames are signed, not encrypted a second time:
//!   such a proxy reads names, codes and card numbers as they pass.
//! - **A cloud that is set back behind its own back**: a snapshot of the machine, a file that was copied over its database.
//!   It believes what it remembers, and lets in a bridge that was revoked since. Put copies back with `latchd cloud
//!   restore`, which asks; else revoke again what was revoked.
//! - **A code of which a newer one may have taken the place.** Where a lock fell silent over the newer code, the slot is
//!   emptied at the end of that one. The older code may be there until then, beyond its own end, unless somebody settles
//!   the doubt or a new order comes; the list of slots says so.
//! - **A bridge that is set back behind its own back, as a machine is by its snapshot, with a cloud that is set back as
//!   well**, in whatever way: where what they remember fits together, nobody can know. It is enough to put the bridge's copy
//!   back with `latchd restore`: then whatever was ordered before both met again and must not be repeated is in doubt, also
//!   what had only waited for the bridge. The same holds for new hardware at a cloud that was set back to before it had
//!   heard of the bridge, and for new hardware in place of one that died before its cloud had a word from it in an epoch.
//! - **What an agent says into a dead connection.** A snapshot of a whole machine with the running agent in it takes its
//!   connection for alive at first. What it numbers then has numbers that the cloud may hold of the real one: unless an
//!   order shows it, neither that memory is known for an old one nor what it said under them is heard.
//! - **A cancel that a very old copy of the cloud repeats.** For a job that this side has forgotten it is answered
//!   `cancelled` at once, also where the job was done in its time.
//! - **The clock of a host that starts while the cloud is away.** Until the cloud has said its time, deadlines go by the
//!   host's clock: whoever sets it back, restarts the agent and keeps the cloud away can have an order begun that had
//!   expired.
//! - **The link to the lock server.** Its protocols are the vendors', mostly without encryption or signatures: whoever is on
//!   that line is the lock server. Keep it on a network of its own.
//! - **An offline card that was written.** It cannot be called back from afar; it opens until its printed end, or until
//!   the room's next override. What is known of it is shown.
//! - **Physical access** to encoders, cards and locks.
