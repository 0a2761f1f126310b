//! Whatever a zone's text is, it is read to its end; what compiles opens, and compiles to the same bytes again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence_policy::rpz::{Trigger, Zone, text};

fuzz_target!(|input: &[u8]| {
    let compiled = text::compile(input, None);
    assert_eq!(compiled.bytes.is_none(), compiled.outcome.faults.iter().any(|fault| fault.fatal));
    let Some(bytes) = compiled.bytes else { return };
    assert_eq!(text::compile(input, None).bytes.as_ref(), Some(&bytes));
    let zone = Zone::open(bytes.into()).expect("what was compiled opens");
    let rules: u32 = Trigger::ALL.into_iter().map(|trigger| zone.rule_count(trigger)).sum();
    assert!(rules <= compiled.outcome.used, "{rules} rules of {} records", compiled.outcome.used);
});
