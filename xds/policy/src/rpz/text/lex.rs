//! Master files into entries, and entries into tokens (RFC 1035 §5.1).

/// One token; `text` still has its escapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) text: &'a [u8],
    pub(super) quoted: bool,
}

/// One record or directive. Reused from one to the next.
#[derive(Default)]
pub(super) struct Entry<'a> {
    /// Where it begins, from 1.
    pub(super) line: u32,
    /// Begins with a blank: the owner is that of the record before.
    pub(super) indented: bool,
    tokens: Vec<Token<'a>>,
}

impl<'a> Entry<'a> {
    pub(super) fn tokens(&self) -> impl Iterator<Item = Token<'a>> {
        self.tokens.iter().copied()
    }
}

pub(super) struct Lexer<'a> {
    rest: &'a [u8],
    line: u32,
}

/// Tokens of one entry, at most: what 65,535 octets of data can be written as.
const MAX_TOKENS: usize = 65_535;

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { rest: text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text), line: 1 }
    }

    /// The next entry that is not empty; behind an error, reading goes on with the next line. `None`: that was all.
    pub(super) fn next_into(&mut self, entry: &mut Entry<'a>) -> Option<Result<(), &'static str>> {
        loop {
            entry.tokens.clear();
            entry.line = self.line;
            entry.indented = matches!(self.rest.first()?, b' ' | b'\t');
            let read = self.read(entry);
            if read.is_err() {
                let end = memchr::memchr(b'\n', self.rest).unwrap_or(self.rest.len());
                self.rest = &self.rest[end..];
            }
            if read.is_err() || !entry.tokens.is_empty() {
                return Some(read);
            }
        }
    }

    /// Reads to the end of a line that no parenthesis continues.
    fn read(&mut self, entry: &mut Entry<'a>) -> Result<(), &'static str> {
        let mut open = false;
        while let Some((&octet, after)) = self.rest.split_first() {
            match octet {
                b'\n' => {
                    self.rest = after;
                    self.line = self.line.saturating_add(1);
                    if !open {
                        return Ok(());
                    }
                }
                b' ' | b'\t' | b'\r' => self.rest = after,
                b';' => self.rest = &self.rest[memchr::memchr(b'\n', self.rest).unwrap_or(self.rest.len())..],
                b'(' if open => return Err("a parenthesis must not stand within another"),
                b')' if !open => return Err("a parenthesis is closed that was not open"),
                b'(' | b')' => {
                    open = octet == b'(';
                    self.rest = after;
                }
                _ if entry.tokens.len() == MAX_TOKENS => return Err("the record is too long"),
                b'"' => {
                    let length = end_of(after, |octet| matches!(octet, b'"' | b'\n'))?;
                    if after.get(length) != Some(&b'"') {
                        return Err("a quoted string must end on its line");
                    }
                    entry.tokens.push(Token { text: &after[..length], quoted: true });
                    self.rest = &after[length + 1..];
                }
                _ => {
                    let length = word(self.rest)?;
                    entry.tokens.push(Token { text: &self.rest[..length], quoted: false });
                    self.rest = &self.rest[length..];
                }
            }
        }
        if open { Err("a parenthesis is not closed") } else { Ok(()) }
    }
}

/// The length of a token that is not quoted as a whole. A part of it may be: `alpn="h2,h3"` (RFC 9460 §2.1).
fn word(text: &[u8]) -> Result<usize, &'static str> {
    let mut at = 0;
    loop {
        at += end_of(&text[at..], |octet| matches!(octet, b' ' | b'\t' | b'\r' | b'\n' | b';' | b'(' | b')' | b'"'))?;
        if text.get(at) != Some(&b'"') {
            return Ok(at);
        }
        at += 1 + end_of(&text[at + 1..], |octet| matches!(octet, b'"' | b'\n'))?;
        if text.get(at) != Some(&b'"') {
            return Err("a quoted string must end on its line");
        }
        at += 1;
    }
}

/// Where the first octet is that ends a token; one behind a backslash does not.
fn end_of(text: &[u8], ends: impl Fn(u8) -> bool) -> Result<usize, &'static str> {
    let mut at = 0;
    while let Some(&octet) = text.get(at) {
        if octet == b'\\' {
            if matches!(text.get(at + 1), None | Some(b'\n')) {
                return Err("a backslash must not end a line");
            }
            at += 2;
        } else if ends(octet) {
            break;
        } else {
            at += 1;
        }
    }
    Ok(at.min(text.len()))
}
