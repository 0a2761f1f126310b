//! How much the labels of a name can say.

/// Characters of host names: letters, digits, `-` and `_`. Each counts as half seen before it is.
const USUAL_WEIGHT: f64 = 0.5;
/// Any other octet: binary labels are rare, and cost no more than their octets in the end.
const OTHER_WEIGHT: f64 = 1.0 / 64.0;
const USUAL_COUNT: f64 = 38.0;
const WEIGHTS: f64 = USUAL_COUNT * USUAL_WEIGHT + (256.0 - USUAL_COUNT) * OTHER_WEIGHT;

/// Octets of information in `labels` (wire form, lower case, without a root), rounded up. Never more than the octets that they take on the
/// wire; another character or label never makes it less.
///
/// Shannon's information of each character under an order-0 model that learns as it goes (Krichevsky and Trofimov 1981): with `n`
/// characters before, `k` of them the same, a character is `log2((n + W) / (k + w))` bits, `w` its weight and `W` that of all octets.
/// A label's length is an octet more.
///
/// So it is the length of a code that names could be sent in, and at most `2^b` names cost `b` bits or less (Kraft), but for one bit where a
/// name is cheaper as plain octets: whatever encoding a client invents, it does not get out more than it is charged. The plain entropy of a
/// label's own histogram promises no such thing: of 16 characters of base32, ten octets, it sees seven, and of `aaaa` nothing, however
/// telling its length. The price: the words of an ordinary name cost most of their length too. They are short, and charged once.
pub fn entropy(labels: &[u8]) -> u32 {
    let (mut seen, mut characters, mut count) = ([0u8; 256], 0u8, 0);
    let (mut bits, mut odds) = (0.0, 1.0_f64);
    let mut rest = labels;
    while let Some((&length, after)) = rest.split_first() {
        let (label, after) = after.split_at_checked(length.into()).unwrap_or((after, &[]));
        for &octet in label {
            let weight = if matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_') { USUAL_WEIGHT } else { OTHER_WEIGHT };
            let before = &mut seen[usize::from(octet)];
            odds *= (f64::from(characters) + WEIGHTS) / (f64::from(*before) + weight);
            // Of 250 characters the product would be more than an f64 holds.
            if odds > 1e200 {
                bits += odds.log2();
                odds = 1.0;
            }
            // A name has at most 255 octets.
            *before = before.saturating_add(1);
            characters = characters.saturating_add(1);
        }
        count += 1;
        rest = after;
    }
    bits += odds.log2();
    count + (bits / 8.0).ceil().min(f64::from(characters)) as u32
}
