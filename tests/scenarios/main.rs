//! Promises of Ringfence, kept by the real binaries over real sockets: a file for each group of promises, a test for each promise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what panics here is a test that failed")]

mod a_crowd_of_sidecars;
mod a_new_binary_takes_over;
mod a_sidecar_may_fail;
mod bad_edits_change_nothing;
mod capture_lets_nothing_out;
mod dns_exfiltration_has_a_budget;
mod dns_withstands;
mod edits_take_effect_live;
mod egress_bypass;
mod egress_follows_policy;
mod egress_judges_the_corpora;
mod egress_of_shared_workloads;
mod egress_reaches_what_is_listed;
mod egress_serves_clients;
mod faults_at_start_are_one_line;
mod http_passes_whole;
mod idle_is_light;
mod keys_and_policy_reach_remembered_tokens;
mod limits_hold;
mod names_are_filtered;
mod nothing_of_another_tenant_reaches_a_stream;
mod only_the_signer_makes_policy;
mod operators_see_what_they_may;
mod policy_zones_come_from_primaries;
mod quickstart_works;
mod refused_resources_reach_the_author;
mod seen_from_outside;
mod sidecars_prove_who_they_are;
mod stopping_is_graceful;
mod tenants_are_learnt_on_demand;
mod the_control_plane_may_fail;
mod the_token_alone_names_the_tenant;
mod traffic_survives_the_control_plane;
mod upstreams_prove_who_they_are;
mod workloads_prove_who_they_are;
