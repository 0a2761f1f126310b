//! PEM (RFC 7468).

use base64::{Engine, engine::general_purpose::STANDARD};

/// `label`: what stands behind BEGIN and END.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for (i, character) in STANDARD.encode(der).chars().enumerate() {
        // RFC 7468 §2: lines of 64.
        if i > 0 && i % 64 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text + &format!("\n-----END {label}-----\n")
}
