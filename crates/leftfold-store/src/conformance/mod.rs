//! The suite that every store must pass.
//!
//! **Owns:** the rules of the contract as tests, and [`Fixture`], which creates the store under test.
//! **Does not know:** which store that is. **Invariants:** a rule is a sentence and tests one idea; it never waits for a clock;
//! where stores may differ, it looks at [`crate::Capabilities`].
//!
//! A back end runs all rules with one line in a test file:
//!
//! ```text
//! leftfold_store::conformance!(my_store, MyFixture::new());
//! ```

#![expect(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "rules are sentences that stop at the first surprise"
)]

pub mod atomicity;
pub mod conditions;
pub mod consumers;
pub mod contention;
pub mod copies;
mod fixtures;
pub mod history;
pub mod idempotency;
pub mod keys;
pub mod lifecycle;
pub mod limits;
pub mod listing;
pub mod parking;
pub mod queries;
pub mod reads;
pub mod restored;
pub mod retention;
pub mod revisions;
pub mod snapshots;
pub mod subscriptions;
pub mod tenants;
pub mod tenants_model;

use std::{future::Future, sync::Arc};

use crate::EventStore;

/// Gives the rules stores to work on.
pub trait Fixture: Send + Sync {
    /// A fresh, empty store.
    fn open(&self) -> impl Future<Output = Arc<dyn EventStore>> + Send;
}

/// Expands into one test per rule, in a module of the given name, over the stores of a [`Fixture`].
///
/// Needs `tokio` with the features `macros`, `rt-multi-thread` and `time`.
#[macro_export]
macro_rules! conformance {
    ($module:ident, $fixture:expr) => {
        mod $module {
            use super::*;
            $crate::partial_conformance!(part, $fixture);
            $crate::__conformance_group!($fixture, limits:
                names_at_their_limits_are_stored,
                sixty_four_tags_are_stored_and_found,
            );
            $crate::__conformance_group!($fixture, retention:
                reclaiming_takes_only_what_no_stream_read_gives,
                a_read_that_a_scavenge_overtakes_gives_whole_events_or_none,
                a_subscription_goes_on_over_what_was_reclaimed,
                what_was_reclaimed_still_fails_conditions_and_is_known_by_its_id,
            );
            $crate::__conformance_group!($fixture, lifecycle:
                a_stream_begins_behind_what_was_erased_whatever_its_metadata_says_since,
                every_call_ends_while_any_other_is_polled_once_and_left,
                closing_ends_while_any_call_is_polled_once_and_left,
                readers_that_stand_still_hold_up_no_call,
            );
            $crate::__conformance_group!($fixture, copies:
                every_position_is_an_entry_and_says_whether_it_is_erased,
                a_copy_of_a_scavenged_store_has_the_same_entries_and_gives_the_same_reads,
                a_longer_log_is_copied_over_an_earlier_copy,
                a_copy_into_a_store_in_use_gives_the_same_reads,
                a_copy_over_another_log_is_refused_at_the_first_position_that_differs,
                a_copy_with_an_entry_that_is_refused_keeps_what_stands_before_it,
            );
        }
    };
}

/// Expands into one test per rule that also holds where a store shows a part of its log, as to a tenant: not those at the limits
/// of names, and those that scavenge or copy the whole.
///
/// Needs what [`conformance!`](crate::conformance!) needs.
#[macro_export]
macro_rules! partial_conformance {
    ($module:ident, $fixture:expr) => {
        mod $module {
            use super::*;
            $crate::__conformance_group!($fixture, snapshots:
                a_snapshot_comes_back_as_it_was_kept_and_only_for_its_stream,
                of_one_program_the_newest_snapshot_stays,
                a_snapshot_of_another_program_takes_the_place_of_any,
                a_removed_snapshot_is_gone_and_removing_none_is_no_error,
            );
            $crate::__conformance_group!($fixture, revisions:
                any_appends_to_a_new_and_to_an_old_stream,
                no_stream_holds_only_before_the_first_event,
                stream_exists_holds_only_after_the_first_event,
                an_exact_revision_holds_only_while_it_is_the_last,
                a_refused_append_writes_nothing_and_tells_the_actual_revision,
                revisions_are_dense_and_start_at_zero,
                positions_are_dense_and_start_at_one,
                streams_do_not_influence_each_other,
            );
            $crate::__conformance_group!($fixture, idempotency:
                a_repeated_append_answers_its_first_places_and_writes_nothing,
                a_repetition_is_recognised_behind_later_appends,
                a_repetition_with_any_is_recognised,
                a_repetition_under_a_condition_is_not_refused_by_its_own_events,
                an_append_of_which_a_part_is_stored_is_refused,
                the_same_events_in_another_order_are_refused,
                an_id_of_another_stream_is_refused,
                a_repeated_append_to_several_streams_answers_its_first_places,
                events_without_a_common_id_are_new_events,
            );
            $crate::__conformance_group!($fixture, atomicity:
                one_refused_write_of_several_writes_nothing,
                an_append_to_several_streams_takes_adjacent_positions_in_order,
                a_stream_may_come_twice_and_sees_its_earlier_write,
                a_failed_condition_writes_nothing,
                ten_thousand_events_are_one_append,
            );
            $crate::__conformance_group!($fixture, queries:
                a_type_matches_any_of_its_list,
                tags_match_only_all_together,
                items_are_alternatives_and_an_event_comes_once,
                types_and_tags_of_an_item_must_both_match,
                an_unknown_type_or_tag_matches_nothing,
                a_query_within_a_stream_or_category_matches_both,
                the_order_of_tags_does_not_matter,
            );
            $crate::__conformance_group!($fixture, conditions:
                a_matching_event_after_the_token_refuses,
                a_matching_event_at_or_before_the_token_does_not,
                a_token_behind_the_end_passes,
                without_a_token_any_match_ever_refuses,
                an_appends_own_events_do_not_count,
                a_type_alone_sees_events_found_by_tag_and_the_other_way_round,
                a_condition_on_everything_refuses_after_any_event,
                the_first_condition_that_fails_is_named_with_an_event,
                a_wrong_revision_is_told_before_a_failed_condition,
                the_token_of_a_read_guards_what_it_saw,
            );
            $crate::__conformance_group!($fixture, contention:
                of_many_contenders_for_a_revision_one_wins,
                of_many_contenders_for_a_condition_one_wins,
                contenders_for_different_boundaries_all_win,
                every_accepted_append_is_explained_by_the_final_log,
            );
            $crate::__conformance_group!($fixture, reads:
                an_empty_store_gives_one_empty_batch,
                everything_comes_in_order_in_both_directions,
                a_read_begins_at_its_position_in_both_directions,
                positions_beyond_the_end_give_nothing_or_the_newest,
                a_stream_is_read_from_a_revision_in_both_directions,
                a_revision_beyond_the_end_gives_nothing_or_the_newest,
                a_limit_is_kept_and_zero_gives_nothing,
                a_category_gives_the_events_of_its_streams_in_order,
                a_stream_is_read_from_a_position_too,
                a_revision_without_a_stream_is_refused,
                an_absent_stream_is_empty,
                a_read_does_not_see_what_is_appended_after_it_began,
                an_event_comes_back_with_everything_it_was_given,
                a_read_that_starts_after_an_append_sees_it,
            );
            $crate::__conformance_group!($fixture, subscriptions:
                what_is_stored_comes_first_and_then_what_is_appended,
                a_subscription_begins_behind_its_checkpoint,
                a_subscription_at_the_end_says_at_once_that_it_is_there,
                a_checkpoint_behind_the_end_is_refused_by_both_positions,
                nothing_is_skipped_or_repeated_while_writers_race,
                a_checkpoint_moves_over_events_that_do_not_match,
                caught_up_is_said_at_the_head,
                a_subscription_of_a_stream_gets_only_its_events,
                a_closed_store_ends_its_subscriptions,
            );
            $crate::__conformance_group!($fixture, limits:
                data_of_every_byte_and_of_none_is_kept,
                the_largest_data_is_kept,
                names_are_kept_byte_for_byte,
                a_given_time_is_recorded,
            );
            $crate::__conformance_group!($fixture, listing:
                streams_are_listed_by_name_with_their_counts,
                a_prefix_and_a_place_to_go_on_from_are_kept,
                an_empty_store_lists_nothing,
                stats_count_the_events,
                the_head_is_the_last_position,
                a_closed_store_takes_no_appends,
                a_store_works_until_it_is_closed,
            );
            $crate::__conformance_group!($fixture, retention:
                a_check_guards_a_stream_that_is_not_written,
                a_check_is_about_the_stream_before_the_append,
                metadata_is_told_and_its_newest_value_counts,
                metadata_may_come_before_the_stream,
                a_read_gives_only_what_truncation_leaves,
                a_read_gives_only_the_newest_of_a_bounded_stream,
                events_over_their_age_are_not_read,
                reads_in_both_directions_show_the_same_events_whatever_their_times,
                a_deleted_stream_reads_as_empty_and_is_not_listed,
                an_append_brings_a_deleted_stream_back_behind_its_old_events,
                a_deleted_stream_does_not_exist,
                a_repetition_of_what_brought_a_stream_back_is_recognised,
                metadata_brings_a_deleted_stream_back_without_its_old_events,
                one_append_may_write_a_stream_and_its_metadata,
                a_stream_deleted_for_good_takes_and_gives_nothing,
                metadata_of_a_stream_deleted_for_good_does_not_bring_it_back,
                deletion_holds_to_what_it_expects,
                a_subscription_of_a_stream_begins_within_what_is_kept,
                a_subscription_of_a_stream_ends_when_it_is_deleted_for_good,
                what_is_appended_behind_a_deletion_is_always_read,
                metadata_of_a_deleted_stream_is_still_there,
            );
            $crate::__conformance_group!($fixture, lifecycle:
                metadata_without_a_truncation_leaves_deleted_events_hidden,
                metadata_that_names_a_truncation_decides_what_is_shown,
                a_truncation_behind_what_was_deleted_leaves_it_deleted,
                the_point_of_a_deletion_is_the_stores_own_whatever_callers_write,
                an_event_of_another_type_in_the_metadata_stream_shows_nothing_deleted,
                a_write_behind_a_deletion_in_one_append_recreates_the_stream,
                a_write_behind_a_tombstone_in_one_append_is_refused,
                metadata_of_users_is_kept_byte_for_byte,
                a_check_of_existence_means_of_a_deleted_stream_what_a_write_means,
                metadata_that_is_too_long_is_refused_and_other_events_beside_it_are_not,
                an_append_decided_before_a_deletion_is_refused_or_read,
            );
            $crate::__conformance_group!($fixture, history:
                random_histories_equal_those_of_the_store_in_memory,
            );
        }
    };
}

/// Expands into one test per rule of consumers, in a module of the given name: for stores that keep consumers.
///
/// Needs what [`conformance!`](crate::conformance!) needs.
#[macro_export]
macro_rules! consumers_conformance {
    ($module:ident, $fixture:expr) => {
        mod $module {
            use super::*;
            $crate::__conformance_group!($fixture, consumers:
                a_new_consumer_starts_where_it_says_and_a_known_one_where_it_is,
                one_holder_at_a_time_has_a_consumer,
                a_claim_of_the_present_holder_is_prolonged_and_keeps_its_term,
                each_new_holder_has_a_higher_term,
                a_released_claim_is_free_at_once,
                of_many_that_claim_at_once_one_holds,
                a_claim_that_ran_out_is_good_until_another_holder_takes_it,
                a_holder_that_was_overtaken_changes_nothing,
                a_checkpoint_moves_from_the_claimed_position_only,
                a_repeated_advance_takes_effect_once,
                a_checkpoint_does_not_go_back,
                consumers_do_not_influence_each_other,
                a_reset_moves_the_checkpoint_and_ends_the_claim,
                a_removed_consumer_is_gone_and_its_terms_go_on,
                a_held_consumer_is_not_removed,
                consumers_are_listed_by_name,
                arguments_beyond_their_limits_are_refused_by_name,
            );
            $crate::__conformance_group!($fixture, parking:
                what_is_parked_comes_back_in_order_and_by_key,
                a_refused_advance_parks_nothing_and_sets_no_timer,
                parked_events_are_bounded,
                an_unparked_event_is_gone_and_unparking_none_is_no_error,
                an_operator_says_what_becomes_of_a_parked_event,
                parking_again_clears_what_an_operator_said,
                timers_are_due_in_order_and_once_cancelled_never,
                a_timer_set_again_is_due_at_its_new_time_only,
                values_at_their_limits_are_stored,
            );
        }
    };
}

/// Expands into one test per rule of tenants, in a module of the given name: for stores that keep consumers.
///
/// Needs what [`conformance!`](crate::conformance!) needs.
#[macro_export]
macro_rules! tenants_conformance {
    ($module:ident, $fixture:expr) => {
        mod $module {
            use super::*;
            $crate::__conformance_group!($fixture, tenants:
                tenants_of_names_that_begin_alike_see_nothing_of_each_other,
                one_append_is_stored_once_for_each_tenant,
                conditions_and_checks_heed_the_tenants_own_events_alone,
                names_that_imitate_anothers_stored_names_reach_nothing,
                deletions_and_tombstones_concern_one_tenant,
                consumers_of_two_tenants_are_different,
                snapshots_of_two_tenants_are_different,
                errors_hold_the_tenants_own_names,
                errors_of_deleted_streams_and_of_consumers_hold_the_tenants_own_names,
                a_closed_tenant_leaves_the_others_open,
                tenants_of_a_tenant_are_apart_too,
                a_scavenge_of_the_store_takes_nothing_that_a_tenant_reads,
            );
            $crate::__conformance_group!($fixture, tenants_model:
                two_tenants_get_what_stores_of_their_own_would_give,
            );
        }
    };
}

/// Expands into one test per rule of restored storages, in a module of the given name, over a
/// [`RestorableFixture`](crate::conformance::restored::RestorableFixture).
///
/// Needs what [`conformance!`](crate::conformance!) needs.
#[macro_export]
macro_rules! restored_conformance {
    ($module:ident, $fixture:expr) => {
        mod $module {
            use super::*;
            $crate::__conformance_group!($fixture, restored:
                an_open_subscription_ends_after_a_restore_and_delivers_no_position_twice,
                a_checkpoint_behind_the_restored_head_is_refused_by_both_positions,
                a_checkpoint_that_the_restored_log_has_goes_on,
                an_append_that_the_restore_took_away_is_stored_again,
                a_revision_that_the_restore_took_away_no_longer_holds,
            );
        }
    };
}

/// Expands into one test per rule about keys of subjects, over the stores of keys of a [`KeysFixture`](keys::KeysFixture).
#[macro_export]
macro_rules! keys_conformance {
    ($module:ident, $fixture:expr) => {
        mod $module {
            use super::*;
            $crate::__conformance_group!($fixture, keys:
                a_key_is_created_once_and_comes_back_by_subject_and_by_name,
                subjects_that_differ_in_any_part_have_keys_of_their_own,
                a_subject_may_have_any_text,
                looking_for_a_key_creates_none,
                many_names_are_found_at_once_those_that_exist,
                a_destroyed_key_is_gone_and_the_next_one_is_another,
                destroying_no_key_is_no_error,
                keys_outlive_who_opened_them_and_destroyed_ones_do_not,
                of_many_that_create_a_key_at_once_all_get_one,
                keys_that_are_created_and_destroyed_at_once_leave_at_most_one,
            );
        }
    };
}

/// Expands into the tests of one group.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_group {
    ($fixture:expr, $group:ident: $($rule:ident),* $(,)?) => {
        mod $group {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $rule() {
                    $crate::conformance::$group::$rule(&$fixture).await;
                }
            )*
        }
    };
}
