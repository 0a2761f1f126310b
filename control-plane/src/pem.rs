//! PEM (RFC 7468).

use pem::{EncodeConfig, LineEnding, Pem, encode_config};

/// `label`: what stands behind BEGIN and END.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    encode_config(&Pem::new(label, der), EncodeConfig::new().set_line_ending(LineEnding::LF))
}
