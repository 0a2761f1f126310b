//! Whatever bytes a peer sends as a resource, they are decoded or refused with faults that are bounded and fit for a log.
//!
//! An input is the kind as a digit, the name, a line break, and the bytes.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ringfence_xds::{
    decode::{check, decode},
    resource::{Kind, Resource},
};

/// Generously what a resource's faults may come to, in bytes.
const MAX_TOLD: usize = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let Some((kind, rest)) = input.split_first() else { return };
    let Some(&kind) = Kind::ALL.get(usize::from(kind.wrapping_sub(b'0'))) else { return };
    let mut parts = rest.splitn(2, |&octet| octet == b'\n');
    let (Some(Ok(name)), Some(bytes)) = (parts.next().map(std::str::from_utf8), parts.next()) else { return };

    let faults = match decode(kind, name, bytes) {
        Ok(_) => Vec::new(),
        Err(rejection) => {
            assert_eq!((rejection.kind, rejection.name.as_str()), (kind, name));
            assert!(!rejection.faults.is_empty());
            assert!(rejection.faults.iter().all(|fault| !fault.message.is_empty() && !fault.to_string().contains(char::is_control)));
            assert!(rejection.faults.iter().map(|fault| fault.to_string().len()).sum::<usize>() <= MAX_TOLD);
            rejection.faults
        }
    };
    // The control plane's verdict on the same bytes.
    assert_eq!(check(&Resource::encoded(kind, name, Bytes::copy_from_slice(bytes))), faults);
});
