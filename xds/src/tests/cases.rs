//! The protocol cases of the shared corpus, by id: played by the tests named here, or excused. The SotW cases are played in the delta
//! form of the same rule; where delta rules otherwise (005: a stale nonce), delta's rule is played.

use std::{collections::BTreeMap, path::PathBuf};

use Case::{Excused, Played};

use crate::{
    client::tests as client,
    server::tests::{answers, bounds, isolation, resume, subscriptions},
};

enum Case {
    Played(&'static [fn()]),
    Excused(&'static str),
}

const SOCKETS: &str = "about the transport: for tests/scenarios, through real sockets";
const FLEET: &str = "about the transport: played by control-plane's fleet::tests, through real sockets";

const CASES: &[(&str, Case)] = &[
    ("xds-server-001", Played(&[subscriptions::the_first_request_brings_what_it_names])),
    ("xds-server-002", Played(&[answers::an_ack_is_not_answered])),
    ("xds-server-003", Played(&[answers::a_nack_is_not_answered_until_something_changes])),
    ("xds-server-004", Played(&[answers::a_nack_is_not_answered_until_something_changes])),
    ("xds-server-005", Played(&[answers::a_stale_nonce_is_no_answer_but_its_subscription_counts])),
    ("xds-server-006", Played(&[subscriptions::a_name_more_brings_that_name])),
    ("xds-server-007", Played(&[subscriptions::what_is_no_longer_asked_for_is_no_longer_told])),
    ("xds-server-008", Played(&[subscriptions::what_is_no_longer_asked_for_is_no_longer_told])),
    ("xds-server-009", Played(&[subscriptions::an_empty_first_request_is_a_wildcard])),
    ("xds-server-010", Played(&[subscriptions::a_wildcard_ends_and_the_names_stay])),
    ("xds-server-011", Played(&[subscriptions::what_is_no_longer_asked_for_is_no_longer_told])),
    ("xds-server-012", Played(&[subscriptions::a_wildcard_is_told_what_comes_and_goes])),
    ("xds-server-013", Played(&[subscriptions::a_wildcard_is_told_what_comes_and_goes])),
    ("xds-server-014", Played(&[subscriptions::an_unknown_name_is_told_absent_and_sent_when_it_comes])),
    ("xds-server-015", Played(&[subscriptions::an_unknown_name_is_told_absent_and_sent_when_it_comes])),
    ("xds-server-016", Played(&[subscriptions::the_node_is_named_first_and_bound])),
    ("xds-server-017", Played(&[subscriptions::the_node_is_named_first_and_bound])),
    ("xds-server-018", Played(&[subscriptions::the_node_is_named_first_and_bound])),
    ("xds-server-019", Played(&[subscriptions::a_type_that_we_have_not_got_disturbs_nothing])),
    ("xds-server-020", Played(&[subscriptions::a_type_that_we_have_not_got_disturbs_nothing])),
    ("xds-server-021", Played(&[answers::kinds_are_independent])),
    ("xds-server-022", Played(&[subscriptions::a_change_still_unsent_is_dropped_with_its_subscription])),
    ("xds-server-023", Played(&[answers::what_is_referred_to_goes_first_and_leaves_last])),
    (
        "xds-server-024",
        Played(&[bounds::a_burst_of_changes_is_one_response_with_the_last_state, bounds::a_change_taken_back_before_it_was_sent_is_none]),
    ),
    (
        "xds-server-025",
        Played(&[
            bounds::a_client_that_does_not_answer_is_sent_little_and_then_the_last_state,
            bounds::what_is_published_for_others_costs_a_stream_nothing,
        ]),
    ),
    ("xds-server-026", Excused(FLEET)),
    ("xds-server-027", Played(&[resume::what_a_client_holds_is_not_sent_again])),
    ("xds-server-028", Played(&[resume::what_a_client_holds_in_another_version_is])),
    ("xds-server-029", Played(&[resume::a_nonce_of_a_dead_stream_makes_no_answer])),
    ("xds-server-030", Excused("no resource of ours has a TTL: policy must not vanish because a heartbeat was late")),
    ("xds-server-031", Played(&[isolation::foreign_names_are_absent_like_any_other, isolation::what_happens_to_foreign_names_is_not_told])),
    ("xds-server-032", Played(&[bounds::ten_thousand_names_in_one_request_are_served, bounds::more_names_than_the_bound_end_the_stream])),
    ("xds-server-033", Played(&[subscriptions::the_first_request_brings_what_it_names])),
    ("xds-server-034", Played(&[subscriptions::only_what_changed_is_sent])),
    ("xds-server-035", Played(&[subscriptions::a_removal_is_told_once])),
    ("xds-server-036", Played(&[subscriptions::an_unknown_name_is_told_absent_and_sent_when_it_comes])),
    ("xds-server-037", Played(&[subscriptions::a_name_held_and_asked_for_again_is_answered])),
    ("xds-server-038", Played(&[subscriptions::what_is_no_longer_asked_for_is_no_longer_told])),
    ("xds-server-039", Played(&[subscriptions::unsubscribing_what_was_never_asked_for_changes_nothing])),
    ("xds-server-040", Played(&[subscriptions::a_name_in_both_lists_is_asked_for_anew])),
    ("xds-server-041", Played(&[subscriptions::an_empty_first_request_is_a_wildcard])),
    ("xds-server-042", Played(&[subscriptions::a_wildcard_ends_and_the_names_stay])),
    ("xds-server-043", Played(&[subscriptions::a_name_given_up_under_a_wildcard_is_answered_and_stays])),
    ("xds-server-044", Played(&[resume::what_a_client_holds_is_not_sent_again])),
    ("xds-server-045", Played(&[resume::what_a_client_holds_in_another_version_is])),
    ("xds-server-046", Played(&[resume::what_a_client_holds_and_is_gone_is_removed])),
    ("xds-server-047", Played(&[resume::only_the_first_request_of_a_kind_tells_what_is_held])),
    ("xds-server-048", Played(&[subscriptions::a_name_more_brings_that_name])),
    (
        "xds-server-049",
        Played(&[answers::a_nack_is_not_answered_until_something_changes, answers::a_nack_that_names_resources_accepts_the_others]),
    ),
    ("xds-server-050", Played(&[answers::answers_may_come_in_any_order, answers::an_answer_to_a_version_sent_anew_is_no_news])),
    ("xds-server-051", Played(&[answers::streams_of_one_node_are_independent])),
    ("xds-server-052", Played(&[answers::kinds_are_independent])),
    ("xds-server-053", Excused(FLEET)),
    ("xds-server-054", Excused(FLEET)),
    ("xds-server-055", Excused(FLEET)),
    ("xds-client-056", Played(&[client::what_can_be_used_is_acknowledged])),
    ("xds-client-057", Played(&[client::what_cannot_is_refused_and_the_version_before_stays])),
    ("xds-client-058", Played(&[client::what_cannot_is_refused_and_the_version_before_stays])),
    ("xds-client-059", Played(&[client::a_first_response_that_cannot_be_used_leaves_nothing_in_force])),
    ("xds-client-060", Played(&[client::what_can_be_used_of_a_response_is_used])),
    ("xds-client-061", Played(&[client::a_response_that_names_a_resource_twice_is_refused_whole])),
    (
        "xds-client-062",
        Played(&[client::bodies_of_another_type_garbage_and_none_are_refused_alone, client::a_response_of_a_type_not_asked_for_is_refused]),
    ),
    ("xds-client-063", Played(&[client::bodies_of_another_type_garbage_and_none_are_refused_alone])),
    ("xds-client-064", Played(&[client::what_was_not_asked_for_is_ignored])),
    // No timer; delta says it, and until then nothing is known.
    ("xds-client-065", Played(&[client::what_is_removed_is_gone_and_known_to_be_absent])),
    ("xds-client-066", Played(&[client::what_is_removed_is_gone_and_known_to_be_absent])),
    ("xds-client-067", Played(&[client::what_cannot_is_refused_and_the_version_before_stays])),
    (
        "xds-client-068",
        Played(&[client::a_new_stream_is_told_all_that_is_wanted_and_held, client::an_update_of_a_stream_that_ended_is_void]),
    ),
    ("xds-client-069", Excused(SOCKETS)),
    ("xds-client-070", Played(&[client::without_a_stream_what_is_held_stays])),
    ("xds-client-071", Played(&[client::an_earlier_run_is_taken_over])),
    ("xds-client-072", Played(&[client::the_node_is_named_in_the_first_request_of_each_stream])),
    ("xds-client-073", Excused(SOCKETS)),
    // Cut by the server, so that the default limit is never met.
    ("xds-client-074", Played(&[bounds::many_resources_are_cut_into_responses_that_any_client_takes, bounds::many_removals_are_cut_too])),
    ("xds-client-075", Excused(SOCKETS)),
    ("xds-client-076", Played(&[client::what_was_not_asked_for_is_ignored])),
    ("xds-client-077", Played(&[client::a_response_that_names_a_resource_twice_is_refused_whole])),
    (
        "xds-client-078",
        Excused("not honoured on purpose: policy must not vanish because a heartbeat was late; heartbeats are acknowledged"),
    ),
];

#[test]
fn every_case_is_played_or_excused() {
    let beside_the_repository = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora");
    let corpora = std::env::var_os("RINGFENCE_CORPORA").map_or_else(beside_the_repository, PathBuf::from);
    let Ok(corpus) = std::fs::read_to_string(corpora.join("xds/protocol_cases.jsonl")) else {
        println!("skipped: no corpora");
        return;
    };
    let mut tally: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for line in corpus.lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let id = case["id"].as_str().unwrap();
        let (_, case) = CASES.iter().find(|(known, _)| *known == id).unwrap_or_else(|| panic!("{id} is neither played nor excused"));
        let told = match case {
            Played(tests) => {
                assert!(!tests.is_empty(), "{id}");
                tests.iter().for_each(|test| test());
                "played"
            }
            Excused(reason) => reason,
        };
        tally.entry(told).or_default().push(id.to_owned());
    }
    assert_eq!(tally.values().map(Vec::len).sum::<usize>(), CASES.len(), "a case that the corpus has no more");
    for (told, ids) in tally {
        println!("{} {told}: {}", ids.len(), ids.join(" "));
    }
}
