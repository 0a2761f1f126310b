//! Amounts as Kubernetes writes them: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
//!
//! Read to be compared alone; what is applied is the text as it was written. Crates that read them are bound to other versions of the API's types.

use std::{cmp::Ordering, fmt, str::FromStr};

use k8s_openapi::apimachinery::pkg::api::resource;

/// An amount, and how it is written. Ordered by amount.
#[derive(Clone, Debug)]
pub(super) struct Quantity {
    text: String,
    /// In billionths, the least that the API knows; what is finer is rounded up, as the API does.
    nanos: i128,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an amount that is not negative, such as 500m, 8 or 16Gi")]
pub(super) struct QuantityError;

const NANOS: i128 = 1_000_000_000;
/// Longest that is read.
const MAX_BYTES: usize = 32;

/// How many billionths a suffix stands for.
const SUFFIXES: &[(&str, i128)] = &[
    ("n", 1),
    ("u", 1_000),
    ("m", 1_000_000),
    ("", NANOS),
    ("k", NANOS * 1_000),
    ("M", NANOS * 1_000_000),
    ("G", NANOS * 1_000_000_000),
    ("T", NANOS * 1_000_000_000_000),
    ("P", NANOS * 1_000_000_000_000_000),
    ("E", NANOS * 1_000_000_000_000_000_000),
    ("Ki", NANOS << 10),
    ("Mi", NANOS << 20),
    ("Gi", NANOS << 30),
    ("Ti", NANOS << 40),
    ("Pi", NANOS << 50),
    ("Ei", NANOS << 60),
];

impl Quantity {
    pub(super) fn milli(count: u32) -> Self {
        Self { text: format!("{count}m"), nanos: i128::from(count) * 1_000_000 }
    }

    pub(super) fn mebi(count: u32) -> Self {
        Self { text: format!("{count}Mi"), nanos: (i128::from(count) * NANOS) << 20 }
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        if text.len() > MAX_BYTES {
            return Err(QuantityError);
        }
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return Err(QuantityError);
        }
        let unit = SUFFIXES.iter().find(|(known, _)| *known == suffix).ok_or(QuantityError)?.1;
        let digits: i128 = format!("0{whole}{fraction}").parse().map_err(|_| QuantityError)?;
        let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).map_err(|_| QuantityError)?).ok_or(QuantityError)?;
        let product = digits.checked_mul(unit).ok_or(QuantityError)?;
        let nanos = product / scale + i128::from(product % scale != 0);
        Ok(Self { text: text.to_owned(), nanos })
    }
}

impl From<u32> for Quantity {
    fn from(count: u32) -> Self {
        Self { text: count.to_string(), nanos: i128::from(count) * NANOS }
    }
}

impl From<&Quantity> for resource::Quantity {
    fn from(quantity: &Quantity) -> Self {
        Self(quantity.text.clone())
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_compared_whatever_they_are_written_in() {
        for (less, more) in
            [("0", "1n"), ("999m", "1"), ("1000Ki", "1Mi"), ("1Mi", "1.1M"), ("1G", "1Gi"), ("7.5Gi", "8Gi"), ("1P", "1E"), (".5", "0.51")]
        {
            let (a, b): (Quantity, Quantity) = (less.parse().unwrap(), more.parse().unwrap());
            assert!(a < b, "{less} < {more}");
        }
        for (one, other) in [("1", "1000m"), ("1024", "1Ki"), ("0.5", "500m"), ("1.", "1"), ("0.1n", "1n"), ("2", "2000000u")] {
            assert_eq!(one.parse::<Quantity>(), other.parse(), "{one} = {other}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in ["", ".", "-1", "+1", "1e3", "1 Gi", "1gi", "Gi", "1.2.3", "0x10", "999999999999999999999999999999999E", "١"] {
            assert_eq!(text.parse::<Quantity>(), Err(QuantityError), "{text}");
        }
    }
}
