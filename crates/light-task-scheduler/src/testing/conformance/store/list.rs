//! The one list of the cases, and the macros that make of it a table and tests.

use super::commands::{command_cancel, command_delete, command_requeue, command_retry_export, command_start, effects};
use super::transitions::{
    run_cancelled, run_complete, run_fail, run_outcome, run_progress, run_release, run_retry, run_started,
    run_stop_unconfirmed,
};
use super::{Case, Need, insert};

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
        effects Any single {
            a_cancel_beats_a_later_success an_outcome_beats_a_later_cancel a_cancelled_task_never_starts
            a_wish_to_cancel_frees_no_slot a_cancellation_storm
            a_requeue_keeps_the_fence_and_starts_a_generation a_requeue_forgets_the_wish_to_cancel
            a_retried_export_needs_no_second_run a_result_comes_back_as_it_was_given
            an_output_of_the_largest_size_comes_back handle_progress_and_failure_come_back_as_given
            the_history_of_attempts_is_bounded each_command_has_its_own_answer
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
/// `store_conformance!(real_time, harness)`. See [the suite](crate::testing::conformance::store) for an example.
#[macro_export]
macro_rules! store_conformance {
    (real_time, $harness:expr) => {
        $crate::__store_conformance! { [] [$harness] }
    };
    ($harness:expr) => {
        $crate::__store_conformance! { [start_paused = true] [$harness] }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_conformance {
    ([$($time:tt)*] [$harness:expr]) => {
        $crate::__store_cases! { [$crate::__store_tests] [$($time)*] [$harness] }

        #[test]
        fn agrees_with_the_model() {
            let paused = !stringify!($($time)*).is_empty();
            $crate::testing::conformance::store::model::check(paused, || $harness);
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
        #[tokio::test($($time)*)]
        async fn $case() {
            $crate::testing::conformance::store::run(&$harness, stringify!($topic), stringify!($case)).await;
        }
    };
    // Real threads: tokio cannot pause time under them.
    (threads [$($time:tt)*] [$harness:expr] $topic:ident $case:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $case() {
            $crate::testing::conformance::store::run(&$harness, stringify!($topic), stringify!($case)).await;
        }
    };
}
