//! Which RSA public keys can be trusted to verify (RFC 7518 §3.3, §6.3.1).

/// Modulus sizes, in bits: RFC 7518 §3.3 sets the floor; beyond the ceiling a key only makes verification slow.
const MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Longest public exponent, in octets: what the crypto provider takes.
const MAX_EXPONENT_OCTETS: usize = 4;

/// Checks modulus and exponent (big-endian) and gives them without leading zeros: some encoders put a sign octet there, which RFC 7518
/// §6.3.1.1 warns of, and the number is the same.
pub(super) fn check<'a>(n: &'a [u8], e: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), String> {
    let (n, e) = (significant(n), significant(e));
    let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
    if !MODULUS_BITS.contains(&bits) {
        return Err(format!("n: must have {} to {} bits, not {bits}", MODULUS_BITS.start(), MODULUS_BITS.end()));
    }
    // With e = 1 every message is its own signature; an even n or e is no RSA key.
    if e.len() > MAX_EXPONENT_OCTETS || e == [1] || !is_odd(e) {
        return Err("e: must be odd, from 3 to 2^32 - 1".into());
    }
    if !is_odd(n) {
        return Err("n: must be odd".into());
    }
    if is_roca(n) {
        return Err("n: comes from a generator whose keys can be factored (CVE-2017-15361): replace the key".into());
    }
    Ok((n, e))
}

fn significant(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|octet| **octet == 0).count();
    &number[zeros..]
}

fn is_odd(number: &[u8]) -> bool {
    number.last().is_some_and(|octet| octet & 1 == 1)
}

/// The fingerprint of CVE-2017-15361 (Nemec et al., CCS 2017, §3.2): the flawed generator makes primes, hence moduli, that are powers of
/// 65537 modulo every small prime. A sound modulus passes for one with a chance of about one in 2^27.
fn is_roca(n: &[u8]) -> bool {
    const PRIMES: [u64; 38] = [
        3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113, 127, 131,
        137, 139, 149, 151, 157, 163, 167,
    ];
    PRIMES.iter().all(|&prime| {
        let residue = n.iter().fold(0, |residue, &octet| (residue * 256 + u64::from(octet)) % prime);
        let mut power = 1;
        (1..prime).any(|_| {
            power = power * 65537 % prime;
            power == residue
        })
    })
}
