//! Whatever a stranger sends as a certificate request is refused, or is for the key that signed it.
//!
//! An input is a PKCS#10 request in DER.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rcgen::PublicKeyData;
use ringfence_control_plane::trust::public_key;

fuzz_target!(|input: &[u8]| {
    // What is granted stands in the request as it is.
    if let Ok(key) = public_key(input) {
        let key = key.der_bytes();
        assert!(input.windows(key.len()).any(|bytes| bytes == key));
    }
});
