//! The list of the laws, and the tests made of it.

/// The names of all laws, in the order of their modules: the functions that
/// [`conformance!`](crate::conformance) makes tests of.
pub const LAWS: &[&str] = crate::__laws!(__law_names!);

/// Makes a `#[test]` of every law. The argument is an expression that makes a
/// [`Harness`](crate::testing::Harness); it is evaluated by every test.
///
/// For two brokers in one test binary, put each into a module of its own.
#[macro_export]
macro_rules! conformance {
    ($harness:expr) => {
        $crate::__laws!(__law_tests! $harness);
    };
}

/// Calls the macro `$then` with its arguments, and the laws by module: there is one list.
#[doc(hidden)]
#[macro_export]
macro_rules! __laws {
    ($then:ident! $($args:tt)*) => {
        $crate::$then! { $($args)*;
            delivery {
                d1_messages_published_while_nobody_receives_arrive_once_and_unchanged,
                d2_many_publishers_and_subscribers_lose_nothing,
                d3_topics_at_once_get_exactly_their_set,
                d4_messages_that_failed_once_are_handled,
                d11_topics_of_a_group_do_not_mix,
                d14_two_groups_each_get_all,
                d16_groups_and_topics_of_one_process_each_get_their_set,
            }
            load {
                d6_a_subscriber_that_is_closed_and_reopened_loses_nothing,
                d10_what_was_confirmed_outlives_its_publishers,
                d15_a_broker_that_restarts_loses_nothing_that_was_confirmed,
                o4_a_backlog_is_not_held_in_memory,
            }
            membership {
                d7_members_opened_and_closed_at_once_take_nothing_with_them,
                d8_what_others_failed_comes_to_a_fresh_member,
                d13_a_dropped_server_ends_and_another_gets_the_rest,
            }
            content {
                d18_odd_bodies_and_headers_arrive_unchanged_or_are_refused,
                d19_an_unknown_topic_or_tag_delays_no_other,
            }
            batch {
                d20_a_batch_that_failed_in_part_redelivers_only_the_failed,
                t3_a_batch_is_linked_to_every_sender,
                r3_a_body_of_a_batch_that_cannot_be_decoded_is_a_dead_letter_by_itself,
                batches_keep_the_order_of_message_groups_while_messages_fail,
            }
            settling {
                d17_settling_out_of_order_is_safe,
                d17_what_is_done_behind_a_message_that_is_handed_back_comes_again,
                s8_what_is_handed_back_comes_elsewhere_before_its_lease_ends,
            }
            lease {
                d12_a_passed_deadline_or_a_lost_lease_cancels_the_handler,
                d21_an_out_of_date_handle_is_given_up,
                l1_a_handler_of_five_invisible_times_is_delivered_once,
                l2_a_lost_lease_cancels_the_handler_and_settles_nothing,
                l3_renewal_stops_at_the_maximum,
            }
            order {
                d5_the_second_message_of_a_group_waits_for_the_first,
                d9_message_groups_stay_in_order_over_many_members,
                o1_message_groups_stay_in_order_over_many_lanes,
                o2_message_groups_stay_in_order_while_messages_fail,
                o3_a_stuck_message_delays_no_other_group_that_was_received,
                o5_message_groups_stay_in_order_across_restarts,
                a_group_and_its_subscriptions_agree_on_order,
            }
            retry {
                r1_backoff_is_never_early,
                r3_a_body_that_cannot_be_decoded_is_a_dead_letter_at_attempt_1,
                r4_a_panic_is_a_failure_of_its_message,
                r7_cancellation_by_shutdown_is_no_failure,
            }
            failure {
                r2_attempts_are_capped_and_the_dead_letter_comes_once,
                r2_t8_a_dead_letter_topic_is_told_why_and_keeps_the_trace,
                r5_a_fatal_failure_ends_the_server_and_loses_nothing,
                r6_a_retry_gets_a_fresh_deadline,
            }
            outage {
                r8_an_outage_costs_few_attempts_and_no_dead_letter,
                r8_an_outage_keeps_the_order,
            }
            shutdown {
                s1_messages_in_flight_are_acknowledged_at_stop,
                s2_what_is_unfinished_at_the_deadline_is_reported,
                s3_a_forced_stop_ends_at_once,
                s5_an_idle_server_stops_at_once,
                s6_a_dead_broker_does_not_hold_the_stop,
                s8_a_message_that_arrives_while_closing_comes_elsewhere,
                s9_acknowledgements_are_flushed_before_the_end,
                s13_stops_under_load_lose_nothing,
            }
            trace {
                t1_the_handler_is_a_child_of_the_sender_and_every_parent_is_exported,
                t2_the_handler_has_the_sender_as_parent_and_link,
                t4_a_bad_or_absent_traceparent_starts_a_new_root,
                t6_an_unsampled_trace_stays_unsampled,
                t7_attempts_are_siblings,
                t8_a_dead_letter_keeps_its_trace,
                t9_concurrent_messages_never_mix_their_traces,
                t10_baggage_reaches_the_handler,
            }
            features {
                a_delayed_message_comes_at_its_time_unless_it_is_called_back,
                an_sql_filter_chooses_by_headers,
                a_higher_priority_comes_first,
                a_transaction_delivers_what_was_committed,
                a_transaction_without_a_checker_is_refused,
                a_broadcast_reaches_every_instance,
                dead_letters_can_be_consumed,
                dead_letters_are_listed_and_sent_back_from_outside,
            }
            refusal {
                what_the_driver_cannot_do_it_refuses,
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __law_tests {
    ($harness:expr; $($module:ident { $($law:ident,)* })*) => {
        $($(
            #[test]
            fn $law() {
                $crate::testing::block_on(async {
                    let harness = $harness;
                    $crate::testing::$module::$law(&harness).await;
                });
            }
        )*)*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __law_names {
    (; $($module:ident { $($law:ident,)* })*) => {
        &[$($(stringify!($law),)*)*]
    };
}
