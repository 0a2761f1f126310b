//! Address prefixes of one family, longest match.
//!
//! Section: rows of `address: W octets, length: u8, parent: u32 LE, code: u32 LE`, W being 4 or 16, sorted by address and then by length. A
//! prefix that holds an address is the last one not behind it, or encloses that one: `parent` is the number, from 1, of the row of the
//! closest prefix around, and 0 where there is none.

use super::{Code, IndexError, is_rule, u32_at};

/// What stands behind the address in a row.
const TAIL: usize = 9;

/// One prefix with the code of its rule. `address`: in the low `8 * W` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rpz) struct Row {
    pub(in crate::rpz) address: u128,
    pub(in crate::rpz) length: u8,
    pub(in crate::rpz) code: Code,
}

/// Writes an index of rows that come in order.
pub(in crate::rpz) fn build<const W: usize>(rows: impl IntoIterator<Item = Row>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut around: Vec<(u32, Row)> = Vec::new();
    for (number, row) in (1u32..).zip(rows) {
        while around.last().is_some_and(|(_, last)| !holds::<W>(last.address, last.length, row.address)) {
            around.pop();
        }
        bytes.extend(&row.address.to_be_bytes()[16 - W..]);
        bytes.push(row.length);
        bytes.extend(around.last().map_or(0, |(number, _)| *number).to_le_bytes());
        bytes.extend(row.code.to_le_bytes());
        around.push((number, row));
    }
    bytes
}

fn holds<const W: usize>(network: u128, length: u8, address: u128) -> bool {
    let bits = 8 * W as u32;
    (network ^ address).checked_shr(bits - u32::from(length)).is_none_or(|rest| rest == 0)
}

#[derive(Clone, Copy)]
pub(in crate::rpz) struct Prefixes<'a, const W: usize>(pub(in crate::rpz) &'a [u8]);

impl<const W: usize> Prefixes<'_, W> {
    const ROW: usize = W + TAIL;

    pub(in crate::rpz) fn len(self) -> usize {
        self.0.len() / Self::ROW
    }

    /// Walks all of it; the number of prefixes. `rows`: of the rule table.
    pub(in crate::rpz) fn check(self, rows: u32) -> Result<u32, IndexError> {
        if !self.0.len().is_multiple_of(Self::ROW) {
            return Err(IndexError::CutOff);
        }
        let mut last = None;
        for number in 0..self.len() {
            let (row, parent) = self.row(number).ok_or(IndexError::CutOff)?;
            let bits = 8 * W as u8;
            if !(1..=bits).contains(&row.length) || row.length < bits && row.address & ((1 << (bits - row.length)) - 1) != 0 {
                return Err(IndexError::Key);
            }
            if last.is_some_and(|last| last >= (row.address, row.length)) {
                return Err(IndexError::Order);
            }
            // Parents stand before their children, so that the way up ends.
            if let Some(parent) = parent {
                let (around, _) = self.row(parent).filter(|_| parent < number).ok_or(IndexError::Key)?;
                if !holds::<W>(around.address, around.length, row.address) || around.length >= row.length {
                    return Err(IndexError::Key);
                }
            }
            if !is_rule(row.code, rows) {
                return Err(IndexError::Rule);
            }
            last = Some((row.address, row.length));
        }
        u32::try_from(self.len()).map_err(|_| IndexError::CutOff)
    }

    /// The longest prefix that holds `address`.
    pub(in crate::rpz) fn longest(self, address: u128) -> Option<Row> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.address(middle)? <= address {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let mut number = low.checked_sub(1)?;
        loop {
            let (row, parent) = self.row(number)?;
            if holds::<W>(row.address, row.length, address) {
                return Some(row);
            }
            number = parent.filter(|parent| *parent < number)?;
        }
    }

    fn address(self, number: usize) -> Option<u128> {
        let octets = self.0.get(number * Self::ROW..)?.first_chunk::<W>()?;
        Some(octets.iter().fold(0, |address, octet| address << 8 | u128::from(*octet)))
    }

    /// A row and the number, from 0, of the one around it.
    fn row(self, number: usize) -> Option<(Row, Option<usize>)> {
        let at = number * Self::ROW + W;
        let row = Row { address: self.address(number)?, length: *self.0.get(at)?, code: u32_at(self.0, at + 5)? };
        Some((row, u32_at(self.0, at + 1)?.checked_sub(1).map(|parent| parent as usize)))
    }
}
