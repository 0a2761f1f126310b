//! Response policy zones, after draft-vixie-dnsop-dns-rpz-00: which answers of the DNS a tenant gets to see.
//!
//! Two halves that meet in a [`Zone`]:
//!
//! - The control plane compiles: [`text::compile`] a master file, or a [`compile::Compiler`] fed with records, into bytes. The same rules
//!   make the same bytes, so a checksum of them names the zone.
//! - A sidecar decides: it opens the bytes as they are, lines zones up as a [`Policy`], and takes each query through a [`Walk`].

mod action;
pub mod compile;
mod filter;
mod index;
mod name;
mod policy;
mod record;
pub mod text;
mod trigger;
mod zone;

pub use action::{Action, Override, OverrideError};
pub use filter::{Act, Lookup, Query, Transport, Verdict, Walk};
pub use index::IndexError;
pub use name::{Name, NameError};
pub use policy::{Decision, Policy, PolicyZone, Rewrite, RuleOwner, Scope};
pub use record::{Record, rtype};
pub use text::Fault;
pub use trigger::{Trigger, TriggerError};
pub use zone::{Zone, ZoneError};

#[cfg(test)]
mod tests;
