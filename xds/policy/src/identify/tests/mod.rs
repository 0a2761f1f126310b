mod corpora;
mod issuers;
pub(super) mod mint;
mod properties;
mod told;
mod verdicts;
