use super::*;

fn verdict(bytes: &[u8]) -> Verdict {
    Sniff::new().look(bytes)
}

#[test]
fn nothing_is_opaque_at_the_end_only() {
    assert_eq!(verdict(b""), Verdict::More);
    assert_eq!(Sniff::new().at_end(b""), Verdict::Is(Sniffed::Opaque));
}
