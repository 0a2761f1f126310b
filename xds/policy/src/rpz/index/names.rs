//! Names, exact and wildcard, a million of them in some 10 MB.
//!
//! An entry is a name with the rules for itself and for what stands below it. Entries are sorted by their keys (labels from right to left, so
//! that all below a name follows it) and front-coded in blocks: of a key only what differs from the one before is written. A search is a
//! binary one over the blocks' first keys and a scan of one block.
//!
//! Blocks are cut where the hash of a key says so, and not after a count: an edit then changes one block, and what a delta must carry stays
//! small.
//!
//! Section `blocks`: rows of `head: [u8; 12], offset: u32 LE`: how the block's first key begins, filled up with zeros, so that a search
//! seldom leaves this section; where the block begins in section `entries`. Those are
//! `shared: u8, length: u8, [u8; length], exact: varint, wildcard: varint`: the octets of the key that are those of the key before (0 in a
//! block's first), the other octets, the codes.
//!
//! A probabilistic filter or a table of hashes would be smaller and faster; a name that is let through or blocked because its hash is that of
//! another is not acceptable where somebody else chooses the names.

use std::cmp::Ordering;

use super::{Code, IndexError, NOTHING, is_rule, push_varint, varint_at};

/// Entries of a block, at most.
const MAX_BLOCK: usize = 64;
/// A block ends behind every eighth key or so.
const BOUNDARY: u64 = 8;
/// Labels of the longest name.
const MAX_DEPTH: usize = 127;

/// Writes an index. Keys come in order.
#[derive(Default)]
pub(in crate::rpz) struct Builder {
    pub(in crate::rpz) blocks: Vec<u8>,
    pub(in crate::rpz) entries: Vec<u8>,
    last: Vec<u8>,
    in_block: usize,
}

impl Builder {
    /// `key`: greater than the one before.
    pub(in crate::rpz) fn push(&mut self, key: &[u8], exact: Code, wildcard: Code) {
        let mut shared = 0;
        if self.in_block == 0 {
            self.blocks.extend(head_octets(key));
            self.blocks.extend((self.entries.len() as u32).to_le_bytes());
        } else {
            shared = common(&self.last, key);
        }
        self.entries.push(shared as u8);
        self.entries.push((key.len() - shared) as u8);
        self.entries.extend(&key[shared..]);
        push_varint(&mut self.entries, exact);
        push_varint(&mut self.entries, wildcard);
        self.last.clear();
        self.last.extend(key);
        self.in_block += 1;
        if self.in_block == MAX_BLOCK || fnv(key).is_multiple_of(BOUNDARY) {
            self.in_block = 0;
        }
    }
}

/// Octets of a key in its block's row.
const HEAD: usize = 12;
const ROW: usize = HEAD + 4;

fn head_octets(key: &[u8]) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    let shown = key.len().min(HEAD);
    head[..shown].copy_from_slice(&key[..shown]);
    head
}

/// Compares as the key does, as far as it shows.
fn head(octets: [u8; HEAD]) -> u128 {
    octets.iter().fold(0, |head, octet| head << 8 | u128::from(*octet))
}

/// FNV-1a with its high bits folded in.
fn fnv(key: &[u8]) -> u64 {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, octet| (hash ^ u64::from(*octet)).wrapping_mul(0x100_0000_01b3));
    hash ^ (hash >> 32)
}

fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// One entry, read.
struct Entry<'a> {
    shared: usize,
    rest: &'a [u8],
    exact: Code,
    wildcard: Code,
    next: usize,
}

#[inline]
fn entry_at(entries: &[u8], at: usize) -> Option<Entry<'_>> {
    let shared = usize::from(*entries.get(at)?);
    let length = usize::from(*entries.get(at + 1)?);
    let rest = entries.get(at + 2..at + 2 + length)?;
    let (exact, next) = varint_at(entries, at + 2 + length)?;
    let (wildcard, next) = varint_at(entries, next)?;
    Some(Entry { shared, rest, exact, wildcard, next })
}

/// Exact and wildcard code.
fn codes_at(octets: &[u8]) -> Option<(Code, Code)> {
    let (exact, next) = varint_at(octets, 0)?;
    let (wildcard, _) = varint_at(octets, next)?;
    Some((exact, wildcard))
}

/// What follows a varint.
#[inline]
fn after_varint(octets: &[u8]) -> Option<&[u8]> {
    let last = octets.iter().position(|octet| *octet < 0x80)?;
    octets.get(last + 1..)
}

/// What is known of an index once it has been walked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::rpz) struct Summary {
    /// Rules.
    pub(in crate::rpz) exact: u32,
    pub(in crate::rpz) wildcard: u32,
    /// Bit n: some wildcard stands below a name of n labels.
    depths: u128,
}

/// The entry that a search ended at: the last one that is not behind the key.
struct Found {
    /// Octets that its key and the one looked for have in common.
    common: usize,
    /// Exact and wildcard code, where it is the key itself.
    equal: Option<(Code, Code)>,
}

#[derive(Clone, Copy)]
pub(in crate::rpz) struct Names<'a> {
    pub(in crate::rpz) blocks: &'a [u8],
    pub(in crate::rpz) entries: &'a [u8],
}

impl Names<'_> {
    /// Walks all of it. `rows`: of the rule table.
    pub(in crate::rpz) fn check(self, rows: u32) -> Result<Summary, IndexError> {
        let mut summary = Summary::default();
        let mut key: Vec<u8> = Vec::with_capacity(255);
        let mut at = 0;
        let mut first = true;
        if !self.blocks.len().is_multiple_of(ROW) {
            return Err(IndexError::Blocks);
        }
        for block in 0..self.blocks.len() / ROW {
            let (shown, start) = self.block(block).ok_or(IndexError::Blocks)?;
            let end = self.block(block + 1).map_or(self.entries.len(), |(_, offset)| offset);
            if start != at {
                return Err(IndexError::Blocks);
            }
            let mut count = 0;
            while at < end {
                let entry = entry_at(self.entries, at).ok_or(IndexError::CutOff)?;
                if entry.shared > key.len()
                    || count == MAX_BLOCK
                    || (count == 0 && (entry.shared != 0 || head(head_octets(entry.rest)) != shown))
                {
                    return Err(IndexError::Blocks);
                }
                // Strictly behind the key before; within a block by the first octet that differs, as `find` relies on.
                let ordered = if count == 0 { *entry.rest > *key } else { entry.rest.first() > key.get(entry.shared) };
                if !ordered && !first {
                    return Err(IndexError::Order);
                }
                key.truncate(entry.shared);
                key.extend(entry.rest);
                let depth = depth(&key).ok_or(IndexError::Key)?;
                let known = |code| code == NOTHING || is_rule(code, rows);
                if !known(entry.exact) || !known(entry.wildcard) || entry.exact == entry.wildcard && entry.exact == NOTHING {
                    return Err(IndexError::Rule);
                }
                summary.exact += u32::from(entry.exact != NOTHING);
                if entry.wildcard != NOTHING {
                    summary.wildcard += 1;
                    summary.depths |= 1 << depth;
                }
                at = entry.next;
                count += 1;
                first = false;
            }
            if count == 0 || at != end {
                return Err(IndexError::Blocks);
            }
        }
        if at == self.entries.len() { Ok(summary) } else { Err(IndexError::Blocks) }
    }

    fn find(self, key: &[u8]) -> Found {
        let mut found = Found { common: 0, equal: None };
        let Some(mut entries) = self.block_of(key).and_then(|at| self.entries.get(at..)) else { return found };
        for count in 0..MAX_BLOCK {
            // What cannot be read is not there: `check` has read it all.
            let [shared, length, entry @ ..] = entries else { break };
            let Some((own, codes)) = entry.split_at_checked(usize::from(*length)) else { break };
            // The next block's first key is behind `key`.
            if count > 0 && usize::from(*shared) < found.common {
                break;
            }
            if usize::from(*shared) == found.common {
                let rest = &key[found.common..];
                let more = common(own, rest);
                match (own.get(more), rest.get(more)) {
                    (None, None) => return Found { common: key.len(), equal: codes_at(codes) },
                    (Some(a), Some(b)) if a > b => break,
                    (Some(_), None) => break,
                    _ => found.common += more,
                }
            }
            // Sharing more with the entry before than the key does, it stands before the key too. Its codes are passed over unread.
            let Some(next) = after_varint(codes).and_then(after_varint) else { break };
            entries = next;
        }
        found
    }

    /// Where the last block begins whose first key is not behind `key`.
    fn block_of(self, key: &[u8]) -> Option<usize> {
        let wanted = head(head_octets(key));
        let (mut low, mut high) = (0, self.blocks.len() / ROW);
        let mut start = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let (shown, offset) = self.block(middle)?;
            let before = match shown.cmp(&wanted) {
                Ordering::Equal => {
                    let length = usize::from(*self.entries.get(offset + 1)?);
                    self.entries.get(offset + 2..offset + 2 + length)? <= key
                }
                order => order.is_lt(),
            };
            if before {
                start = Some(offset);
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        start
    }

    /// The head and the offset of a block.
    #[inline]
    fn block(self, number: usize) -> Option<(u128, usize)> {
        let row = u128::from_be_bytes(*self.blocks.get(number * ROW..)?.first_chunk::<ROW>()?);
        Some((row >> 32, (row as u32).swap_bytes() as usize))
    }

    /// The rule for a name: the one for itself, else the one for the longest name that it stands below. With the number of labels that the
    /// wildcard's name has.
    pub(in crate::rpz) fn rule_for(self, key: &[u8], summary: Summary) -> Option<(Code, Option<usize>)> {
        if summary.exact == 0 && summary.depths == 0 {
            return None;
        }
        // Where each label of the key ends.
        let mut ends = [0u8; MAX_DEPTH + 1];
        let (mut at, mut depth) = (0, 0);
        while at < key.len() && depth < MAX_DEPTH {
            at += usize::from(key[at]) + 1;
            depth += 1;
            ends[depth] = at as u8;
        }
        let mut found = self.find(key);
        if let Some((exact, _)) = found.equal
            && exact != NOTHING
        {
            return Some((exact, None));
        }
        // A name that the key stands below shares all of its labels with the entry before the key.
        while let Some(next) = (0..depth).rev().find(|d| summary.depths >> d & 1 == 1 && usize::from(ends[*d]) <= found.common) {
            found = self.find(&key[..usize::from(ends[next])]);
            if let Some((_, wildcard)) = found.equal
                && wildcard != NOTHING
            {
                return Some((wildcard, Some(next)));
            }
            depth = next;
        }
        None
    }
}

/// The labels of a key. `None`: it is the key of no name.
fn depth(key: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0);
    while at < key.len() {
        if !(1..=63).contains(&key[at]) {
            return None;
        }
        at += usize::from(key[at]) + 1;
        depth += 1;
    }
    (at == key.len() && at < 255).then_some(depth)
}
