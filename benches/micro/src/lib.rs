//! The decisions of the request path, each ready to be run alone: for its time ([criterion](../benches/time.rs)) and, where a shared machine
//! has to judge, for its instructions (`main.rs`).
//!
//! What is measured is the product's own code, called as its routes call it. A number in a name is how many rules, keys, tokens or tenants
//! there are.

#![allow(clippy::expect_used, reason = "what cannot be prepared cannot be measured")]

mod config;
mod egress;
mod identify;
mod limits;
mod log;
mod rpz;
mod scopes;
mod world;

/// One run of what is measured.
pub type Run = Box<dyn FnMut()>;

pub struct Case {
    pub name: &'static str,
    /// Makes all that a run needs, so that a run does nothing else.
    pub prepare: fn() -> Run,
}

pub fn cases() -> impl Iterator<Item = &'static Case> {
    [identify::CASES, limits::CASES, log::CASES, scopes::CASES, egress::CASES, rpz::CASES, config::CASES].into_iter().flatten()
}
