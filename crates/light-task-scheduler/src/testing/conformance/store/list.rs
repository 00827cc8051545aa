//! The one list of the cases, and the macros that make of it a table and tests.

use super::commands::{
    command_cancel, command_delete, command_requeue, command_reschedule, command_retry_export, command_start, effects,
};
use super::handles::{at_once as handles_at_once, in_turn as handles_in_turn};
use super::order::{by_priority, fifo};
use super::restart::{durable, shared};
use super::transitions::{
    run_cancelled, run_complete, run_fail, run_outcome, run_progress, run_release, run_retry, run_started,
    run_stop_unconfirmed,
};
use super::{
    Case, Need, claims, deadlines, drains, insert, limits, listing, lookalikes, order, parallel, queues, repeats,
    replicas, reports, reschedule, rescue, retention, windows,
};

/// Hands the list of the cases to a macro: topic, need, flavour and names.
#[doc(hidden)]
#[macro_export]
macro_rules! __store_cases {
    ([$($then:tt)*] $($with:tt)*) => { $($then)*! { $($with)*
        insert Any single {
            a_new_task_is_waiting every_field_comes_back ids_are_made_where_there_is_none
            a_delay_counts_from_the_insertion a_start_time_is_kept the_far_future_does_not_overflow
            the_same_again_is_the_existing_one the_same_again_resets_nothing
            other_options_under_the_same_id_change_nothing another_payload_is_a_conflict
            another_kind_is_a_conflict twice_in_one_call_is_one_task each_item_has_its_own_answer
            an_empty_call_does_nothing a_deleted_task_is_remembered
            a_deleted_task_with_another_payload_is_a_conflict a_tombstone_expires the_payload_limit_is_exact
            hostile_payloads_survive hostile_ids_are_only_ids hostile_names_are_only_names label_limits_are_exact
            a_bad_retry_policy_is_refused the_batch_limit_is_exact get_answers_in_the_order_asked
            a_held_task_waits_for_its_start creation_is_stamped_by_the_store
        }
        run_started Any single {
            from_running with_a_cancel_wished while_exporting after_a_retry after_success after_failure
            after_cancellation by_an_earlier_run by_another_owner to_an_unowned_task to_a_missing_task repeated
            twice_in_one_call after_a_requeue after_an_adoption after_a_retried_export
        }
        run_progress Any single {
            from_running with_a_cancel_wished while_exporting after_a_retry after_success after_failure
            after_cancellation by_an_earlier_run by_another_owner to_an_unowned_task to_a_missing_task repeated
            twice_in_one_call after_a_requeue after_an_adoption after_a_retried_export
        }
        run_stop_unconfirmed Any single {
            from_running with_a_cancel_wished while_exporting after_a_retry after_success after_failure
            after_cancellation by_an_earlier_run by_another_owner to_an_unowned_task to_a_missing_task repeated
            twice_in_one_call after_a_requeue after_an_adoption after_a_retried_export
        }
        run_outcome Any single {
            from_running with_a_cancel_wished while_exporting after_a_retry after_success after_failure
            after_cancellation by_an_earlier_run by_another_owner to_an_unowned_task to_a_missing_task repeated
            twice_in_one_call after_a_requeue after_an_adoption after_a_retried_export
        }
        run_complete Any single {
            from_running with_a_cancel_wished while_exporting after_a_retry after_success after_failure
            after_cancellation by_an_earlier_run by_another_owner to_an_unowned_task to_a_missing_task repeated
            twice_in_one_call after_a_requeue after_an_adoption after_a_retried_export
        }
        run_retry Any single {
            from_running with_a_cancel_wished while_exporting after_a_retry after_success after_failure
            after_cancellation by_an_earlier_run by_another_owner to_an_unowned_task to_a_missing_task repeated
            twice_in_one_call after_a_requeue after_an_adoption after_a_retried_export
        }
        run_release Any single {
            from_running with_a_cancel_wished while_exporting after_a_retry after_success after_failure
            after_cancellation by_an_earlier_run by_another_owner to_an_unowned_task to_a_missing_task repeated
            twice_in_one_call after_a_requeue after_an_adoption after_a_retried_export
        }
        run_fail Any single {
            from_running with_a_cancel_wished while_exporting after_a_retry after_success after_failure
            after_cancellation by_an_earlier_run by_another_owner to_an_unowned_task to_a_missing_task repeated
            twice_in_one_call after_a_requeue after_an_adoption after_a_retried_export
        }
        run_cancelled Any single {
            from_running with_a_cancel_wished while_exporting after_a_retry after_success after_failure
            after_cancellation by_an_earlier_run by_another_owner to_an_unowned_task to_a_missing_task repeated
            twice_in_one_call after_a_requeue after_an_adoption after_a_retried_export
        }
        command_start Any single {
            while_held while_waiting while_running while_a_cancel_is_wished while_exporting after_success
            after_failure after_a_failed_export after_cancellation of_a_missing_task
        }
        command_cancel Any single {
            while_held while_waiting while_running while_a_cancel_is_wished while_exporting after_success
            after_failure after_a_failed_export after_cancellation of_a_missing_task
        }
        command_requeue Any single {
            while_held while_waiting while_running while_a_cancel_is_wished while_exporting after_success
            after_failure after_a_failed_export after_cancellation of_a_missing_task
        }
        command_retry_export Any single {
            while_held while_waiting while_running while_a_cancel_is_wished while_exporting after_success
            after_failure after_a_failed_export after_cancellation of_a_missing_task
        }
        command_delete Any single {
            while_held while_waiting while_running while_a_cancel_is_wished while_exporting after_success
            after_failure after_a_failed_export after_cancellation of_a_missing_task
        }
        command_reschedule Any single {
            while_held while_waiting while_running while_a_cancel_is_wished while_exporting after_success
            after_failure after_a_failed_export after_cancellation of_a_missing_task
        }
        reschedule Any single {
            moved_earlier_it_runs_at_once moved_later_it_is_not_claimed_before a_claim_among_names_waits_for_the_new_time
            who_waits_hears_of_it the_new_time_is_told_to_claimers a_held_task_stays_held_and_keeps_its_time
            the_new_time_orders_among_equals what_is_due_keeps_its_place repeated_it_changes_nothing
            nothing_else_of_the_task_changes it_takes_no_slot_and_no_permit a_deadline_still_holds
            a_retrying_task_can_go_on_now the_counts_follow a_crowd_moves_at_once several_times_in_one_call
            the_priority_stays_for_later_attempts
        }
        effects Any single {
            a_cancel_beats_a_later_success an_outcome_beats_a_later_cancel a_cancelled_task_never_starts
            a_wish_to_cancel_frees_no_slot a_cancellation_storm
            a_requeue_keeps_the_fence_and_starts_a_generation a_requeue_forgets_the_wish_to_cancel
            a_retried_export_needs_no_second_run a_result_comes_back_as_it_was_given
            an_output_of_the_largest_size_comes_back handle_progress_and_failure_come_back_as_given
            the_history_of_attempts_is_bounded each_command_has_its_own_answer
        }
        order Any single {
            insertion_orders_equals ids_do_not_order the_due_time_goes_before_the_insertion
            a_retried_task_queues_by_its_new_time nothing_starts_before_its_time a_retry_waits_for_its_time
            delayed_tasks_hide_nothing other_kinds_hide_nothing blocked_queues_hide_nothing
            only_asked_kinds_are_taken only_asked_queues_are_taken queues_and_kinds_share_one_order
            never_more_than_asked a_claim_moves_the_fence_and_counts_the_attempt
            the_fence_grows_with_every_claim only_waiting_tasks_are_taken a_requeued_task_queues_at_the_end
        }
        limits Any single {
            a_limit_is_exact every_end_frees_its_slot exporting_holds_no_slot a_dead_owner_frees_no_slot
            a_limit_set_later_counts_what_runs limits_are_per_queue commands_take_no_slot
            a_paused_queue_starts_nothing an_unknown_queue_can_be_paused a_rate_spreads_starts
            a_burst_is_spent_and_refills replicas_share_one_rate a_permit_is_spent_by_a_start_only
            a_retry_needs_a_permit a_rate_holds_up_its_own_queue_only
        }
        claims Any single {
            an_unknown_replica_gets_nothing a_replica_that_left_gets_nothing
            an_expired_replica_gets_nothing_until_it_beats a_replica_declared_dead_gets_nothing
            a_heartbeat_prolongs_the_lease a_repeated_claim_returns_the_same_tasks
            a_repeated_empty_claim_takes_nothing a_repeated_claim_leaves_out_what_has_ended
            a_repeated_claim_leaves_out_what_others_own claim_numbers_are_per_replica
            without_work_there_is_no_next_time the_next_delayed_task_is_told
            other_kinds_and_queues_are_no_reason_to_ask the_next_deadline_is_told leftover_work_is_due_now
            blocked_work_is_not_due_now the_next_permit_is_told the_next_retry_is_told a_large_claim_is_whole
        }
        windows Any single {
            only_named_tasks_are_taken named_tasks_are_taken_in_order unknown_and_repeated_names_are_ignored
            no_names_take_nothing named_tasks_of_other_kinds_and_queues_are_not_taken
            named_tasks_that_do_not_wait_are_not_taken named_tasks_wait_for_their_time
            a_pause_holds_named_tasks a_limit_holds_named_tasks a_rate_holds_named_tasks
            an_overdue_named_task_expires a_repeat_takes_no_other_names other_due_work_is_told
            the_number_of_names_is_bounded candidates_come_in_the_order_of_claims candidates_are_bounded_per_lane
            candidates_are_of_the_asked_kinds_and_queues only_due_waiting_tasks_are_candidates
            a_task_that_has_become_due_is_a_candidate paused_queues_have_no_candidates_full_ones_do
            looking_changes_nothing
        }
        deadlines Any single {
            a_waiting_task_expires a_held_task_expires an_overdue_task_does_not_start
            expiry_needs_no_slot_kind_or_queue an_owned_task_does_not_expire a_retrying_task_expires
            a_requeue_does_not_move_the_deadline a_crowd_expires_at_once
        }
        replicas Any single {
            a_replica_is_listed a_heartbeat_is_a_sign_of_life an_id_registers_once
            an_unknown_replica_cannot_beat a_replica_that_left_cannot_beat a_dead_replica_cannot_beat
            an_expired_replica_can_beat an_expired_owner_still_writes the_dead_are_listed_while_they_own
            a_wish_to_cancel_is_told_until_the_end a_wish_to_cancel_goes_to_the_adopter
            matching_holdings_list_nothing other_holdings_list_what_is_owned
            holding_what_is_not_owned_is_a_mismatch unknown_holdings_list_nothing
            the_write_counter_moves_forward the_stores_time_never_goes_back
        }
        drains Any single {
            it_claims_nothing its_heartbeats_say_so it_is_listed_as_draining it_ends_what_it_owns
            it_leaves_like_any_other a_claim_from_before_is_repeated it_rescues_nobody repeating_it_changes_nothing
            who_is_not_there_cannot_drain an_expired_replica_hears_of_it_later a_fresh_registration_does_not_drain
        }
        reports Any single {
            a_progress_reaches_its_owner_once an_outcome_is_repeated_until_its_run_has_ended
            repeated_outcomes_leave_room_for_others every_kind_of_report_comes_through an_early_report_is_kept
            a_report_without_a_run_is_dropped a_foreign_execution_is_dropped a_late_report_is_dropped
            an_unfetched_report_dies_with_its_run the_first_outcome_wins
            reports_after_a_fetched_outcome_are_dropped an_outcome_replaces_progress
            an_adopter_gets_the_report_again a_report_survives_the_death_of_its_owner
            each_report_has_its_own_answer a_requeued_task_hears_nothing_old
        }
        rescue Any single {
            an_expired_owners_task_is_adopted the_old_owner_is_fenced_off
            a_dead_owner_may_finish_what_nobody_adopted a_suspect_with_a_lease_is_spared
            a_suspect_that_beat_in_between_is_spared who_is_not_suspected_is_spared
            each_suspect_is_judged_for_itself a_repeated_rescue_names_the_dead_again
            only_asked_kinds_are_adopted only_asked_queues_are_adopted the_oldest_claims_are_adopted_first an_exporting_task_is_adopted_too
            a_leaver_hands_over_at_once only_owned_states_are_adopted two_rescuers_share_nothing
            a_chain_of_adoptions_keeps_the_execution a_claim_after_an_adoption_is_a_new_execution
            a_rescuer_must_be_alive a_rescuer_does_not_bury_itself an_unknown_suspect_does_no_harm
        }
        listing Any single {
            the_newest_comes_first the_list_shows_whole_tasks filters_by_state filters_by_queue_and_kind
            filters_by_labels filters_by_creation filters_by_id_prefix all_filters_together
            pages_make_up_the_list a_page_is_bounded the_last_page_has_no_next a_cursor_is_stable
            counts_know_every_state counts_equal_a_recount
        }
        queues Any single {
            settings_come_back bad_settings_are_refused a_queue_is_known_from_its_first_task
            a_refused_task_makes_no_queue the_hint_is_never_needed dropped_waits_disturb_nothing
        }
        retention Any single {
            a_deleted_task_is_gone only_asked_states_are_swept the_age_counts_from_the_end
            without_an_age_nothing_is_swept what_is_not_over_is_never_swept the_exempting_label_spares
            a_sweep_is_bounded a_swept_task_is_remembered garbage_is_told_until_confirmed
            every_removal_of_a_result_is_garbage garbage_is_bounded
        }
        by_priority Priority single {
            priority_goes_first priority_beats_the_due_time priority_counts_across_queues_and_kinds
            every_claim_takes_the_best_there_is named_tasks_go_by_priority candidates_go_by_priority
            a_new_priority_orders_at_once a_new_priority_of_what_is_not_due_orders_later
        }
        fifo Fifo single {
            priority_changes_nothing
        }
        durable Durable single {
            every_field_of_every_task a_new_time_and_priority counts_and_queues the_order_of_what_waits ids_and_tombstones
            ownership_and_adoption a_limit_counts_what_ran_before a_rate_stays_spent the_dead_stay_dead who_drains_goes_on_draining
            reports_and_garbage time_and_write_counter_go_on
        }
        shared Shared single {
            both_see_one_store claims_are_exclusive limits_are_exact_across_handles
            a_new_time_holds_for_both a_drain_holds_for_both rescue_works_across_handles reports_cross_handles a_hint_or_a_poll_finds_the_others_work
        }
        lookalikes Any single {
            hostile_failures_survive hostile_handles_and_messages_survive hostile_reports_survive
            hostile_replica_names_survive queues_that_look_alike_are_apart kinds_that_look_alike_are_apart
            ids_that_look_alike_are_apart labels_that_look_alike_are_apart hostile_label_values_are_found
            result_keys_that_look_alike_are_apart extreme_numbers_survive extreme_deadlines_hold
            extreme_limits_are_no_error extreme_settings_survive every_batch_is_bounded
            the_same_text_in_every_place_is_no_confusion
        }
        repeats Any single {
            a_batch_of_ends_sent_again a_release_sent_again_after_the_next_claim insertions_sent_again
            a_task_that_moves_twice_among_others successes_among_many_that_are_alike
            a_claim_sent_again_spends_nothing a_claim_sent_again_by_the_dead a_rescue_sent_again leaving_again
            registering_again commands_sent_again reports_sent_again a_confirmation_sent_again
        }
        handles_in_turn Shared single {
            a_rate_is_shared a_claim_is_repeated_through_another an_empty_claim_hides_nothing an_outcome_is_repeated_through_another
            the_order_is_one a_cursor_is_good_everywhere candidates_go_stale holdings_are_counted_everywhere
            leases_are_shared tombstones_and_garbage_are_shared time_and_write_counter_are_one counts_are_shared
        }
        handles_at_once Shared threads {
            every_task_is_claimed_once a_burst_is_exact a_limit_is_exact one_id_is_one_task
            completion_and_adoption_have_one_winner completion_and_cancellation_have_one_winner
            what_comes_in_meanwhile_is_claimed rescuers_share_nothing a_removal_is_one counts_stay_right
        }
        parallel Any threads {
            every_task_is_claimed_once a_limit_is_exact_under_contention a_burst_is_exact_under_contention
            what_is_moved_later_is_not_claimed one_id_inserted_by_many_is_one_task a_race_of_success_and_cancel_has_one_winner
            rescuers_at_once_share_nothing claims_among_the_same_tasks_share_nothing one_claim_sent_many_times_is_one_claim
        }
    } };
}

/// Makes the table of the cases.
macro_rules! table {
    ($($topic:ident $need:ident $flavour:ident { $($case:ident)* })*) => {
        /// Every case of the suite.
        pub const CASES: &[Case] = &[$($(
            Case {
                topic: stringify!($topic),
                name: stringify!($case),
                need: Need::$need,
                run: |harness| Box::pin($topic::$case(harness)),
            },
        )*)*];
    };
}

crate::__store_cases! { [table] }

/// Makes the suite into tests: one `#[tokio::test]` per case under its own name, `agrees_with_the_model`, and
/// `matrix`, which prints what applies.
///
/// The expression makes a fresh [`StoreHarness`](crate::testing::conformance::store::StoreHarness) and is
/// evaluated once per test. By default tokio's time stands still; a store that talks to a server needs
/// `store_conformance!(real_time, harness, model: other)`. With `model: other` the model is compared with another
/// harness: one that runs thousands of short cases faster in another mode, and after `real_time` one whose store has
/// a clock that stands still between its steps.
/// See [the suite](crate::testing::conformance::store) for an example.
#[macro_export]
macro_rules! store_conformance {
    (real_time, $harness:expr, model: $model:expr) => {
        $crate::__store_conformance! { [] [$harness] [$model] }
    };
    ($harness:expr) => {
        $crate::__store_conformance! { [start_paused = true] [$harness] [$harness] }
    };
    ($harness:expr, model: $model:expr) => {
        $crate::__store_conformance! { [start_paused = true] [$harness] [$model] }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_conformance {
    ([$($time:tt)*] [$harness:expr] [$model:expr]) => {
        $crate::__store_cases! { [$crate::__store_tests] [$($time)*] [$harness] }

        #[test]
        fn agrees_with_the_model() {
            let paused = !stringify!($($time)*).is_empty();
            $crate::testing::conformance::store::model::check(paused, || $model);
        }

        #[tokio::test]
        async fn matrix() {
            $crate::testing::conformance::store::print_matrix(&$harness);
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_tests {
    ($time:tt $harness:tt $($topic:ident $need:ident $flavour:ident { $($case:ident)* })*) => {$(
        mod $topic {
            #[allow(unused_imports)]
            use super::*;
            $( $crate::__store_test! { $flavour $time $harness $topic $case } )*
        }
    )*};
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_test {
    (single [$($time:tt)*] [$harness:expr] $topic:ident $case:ident) => {
        #[test]
        fn $case() {
            let paused = !stringify!($($time)*).is_empty();
            let threads = if paused { $crate::testing::conformance::store::Threads::OnePaused }
                else { $crate::testing::conformance::store::Threads::One };
            $crate::testing::conformance::store::run_alone(
                threads, &|| Box::new($harness), stringify!($topic), stringify!($case));
        }
    };
    // Real threads: tokio cannot pause time under them.
    (threads [$($time:tt)*] [$harness:expr] $topic:ident $case:ident) => {
        #[test]
        fn $case() {
            $crate::testing::conformance::store::run_alone(
                $crate::testing::conformance::store::Threads::Four,
                &|| Box::new($harness), stringify!($topic), stringify!($case));
        }
    };
}
