//! One request head: the request line and the fields that decide framing, authority and the connection's end.

use std::ops::Range;

use super::{
    Framing, Targets, Violation,
    syntax::{is_authority, is_field_value, is_origin_form, is_token, line_end},
};
use crate::hop::limits::{MAX_FIELDS, MAX_HEAD, MAX_TARGET};

/// A head on its way in. Offsets count from the head's first octet.
#[derive(Debug)]
pub(super) struct Head {
    targets: Targets,
    /// Where the first line that has not been judged begins.
    line: usize,
    /// No end of line stands between `line` and here.
    searched: usize,
    request: Option<RequestLine>,
    fields: usize,
    /// Where the value of Host stands.
    host: Option<Range<usize>>,
    content_length: Option<u64>,
    chunked: bool,
    /// A `Content_Length`, which a CGI gateway would take for the real one.
    disguised_length: Option<u64>,
    close: bool,
    keep_alive: bool,
    connection_upgrade: bool,
    websocket: bool,
    websocket_key: bool,
    websocket_version: bool,
}

#[derive(Debug)]
struct RequestLine {
    is_get: bool,
    is_connect: bool,
    is_http11: bool,
    /// Absolute-form: where its authority stands.
    authority: Option<Range<usize>>,
}

/// A sound head.
pub(super) struct Done {
    pub(super) octets: usize,
    pub(super) framing: Framing,
    pub(super) close: bool,
    /// A complete WebSocket handshake or CONNECT: if it is granted, what follows is no HTTP.
    pub(super) may_upgrade: bool,
}

const fn malformed<T>(what: &'static str) -> Result<T, Violation> {
    Err(Violation::Malformed(what))
}

impl Head {
    pub(super) fn new(targets: Targets) -> Self {
        Self {
            targets,
            line: 0,
            searched: 0,
            request: None,
            fields: 0,
            host: None,
            content_length: None,
            chunked: false,
            disguised_length: None,
            close: false,
            keep_alive: false,
            connection_upgrade: false,
            websocket: false,
            websocket_key: false,
            websocket_version: false,
        }
    }

    /// `octets` begin with the head's first; each call shows at least as many as the last. `None`: it goes on.
    pub(super) fn scan(&mut self, octets: &[u8]) -> Result<Option<Done>, Violation> {
        loop {
            let end = line_end(&octets[self.searched..]);
            self.searched += end.distance();
            if self.searched + 2 > MAX_HEAD {
                return Err(Violation::HeadTooLarge);
            }
            let line = self.line..self.searched;
            // What cannot become a request need not be waited for.
            if self.request.is_none() && !end.is_found() {
                request_line(octets, line.clone(), self.targets, false)?;
            }
            if !end.proceed()? {
                return Ok(None);
            }
            self.line = line.end + 2;
            self.searched = self.line;
            match &self.request {
                // One empty line before the request line is ignored (RFC 9112 §2.2).
                None if line == (0..0) => {}
                None => self.request = request_line(octets, line, self.targets, true)?,
                Some(_) if line.is_empty() => return self.finish(octets).map(Some),
                Some(_) => self.field(octets, line)?,
            }
        }
    }

    fn field(&mut self, octets: &[u8], line: Range<usize>) -> Result<(), Violation> {
        self.fields += 1;
        if self.fields > MAX_FIELDS {
            return Err(Violation::HeadTooLarge);
        }
        let text = &octets[line.clone()];
        let Some(colon) = memchr::memchr(b':', text) else { return malformed("a field line must have a colon") };
        let name = &text[..colon];
        if !is_token(name) {
            return malformed("a field name must be a token directly before its colon, and no line may be folded");
        }
        let raw = &text[colon + 1..];
        if !is_field_value(raw) {
            return malformed("a field value must have no control characters");
        }
        // The length tells most fields apart without comparing.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                if self.host.is_some() {
                    return malformed("Host must stand once");
                }
                let value = raw.trim_ascii();
                if !is_authority(value) {
                    return malformed("Host must be a host and an optional port");
                }
                let start = line.start + colon + 1 + (raw.len() - raw.trim_ascii_start().len());
                self.host = Some(start..start + value.len());
            }
            6 if name.eq_ignore_ascii_case(b"expect") && !raw.trim_ascii().eq_ignore_ascii_case(b"100-continue") => {
                return malformed("Expect must be 100-continue");
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.websocket = raw.trim_ascii().eq_ignore_ascii_case(b"websocket"),
            10 if name.eq_ignore_ascii_case(b"connection") => self.connection(raw),
            14 if is_name_or_disguise(name, b"content-length") => {
                let length = content_length(raw.trim_ascii())?;
                let slot = if name[7] == b'-' { &mut self.content_length } else { &mut self.disguised_length };
                if slot.replace(length).is_some() {
                    return malformed("Content-Length must stand once");
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked || !raw.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return malformed("Transfer-Encoding must be `chunked`, once");
                }
                self.chunked = true;
            }
            17 if name.eq_ignore_ascii_case(b"sec-websocket-key") => self.websocket_key = true,
            21 if name.eq_ignore_ascii_case(b"sec-websocket-version") => self.websocket_version = raw.trim_ascii() == b"13",
            _ => {}
        }
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) {
        for option in value.split(|&octet| octet == b',').map(<[u8]>::trim_ascii) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
    }

    fn finish(&self, octets: &[u8]) -> Result<Done, Violation> {
        let Some(request) = &self.request else { return malformed("a head must begin with a request line") };
        if request.is_connect && (self.chunked || self.content_length.is_some()) {
            return malformed("CONNECT must have no body and no field that announces one");
        }
        match (&self.host, &request.authority) {
            // Old clients: the target says it all.
            (None, _) if request.is_connect && !request.is_http11 => {}
            // HTTP/1.0 allows a request without Host; a proxy that speaks 1.1 on its behalf would have to make one up.
            (None, _) => return malformed("Host must be present"),
            (Some(host), Some(authority))
                if self.targets == Targets::Server && !octets[authority.clone()].eq_ignore_ascii_case(&octets[host.clone()]) =>
            {
                return malformed("Host must equal the authority of an absolute-form target");
            }
            _ => {}
        }
        if self.chunked && !request.is_http11 {
            return malformed("Transfer-Encoding must not stand in HTTP/1.0");
        }
        if self.chunked && self.content_length.is_some() {
            return malformed("Content-Length and Transfer-Encoding must not stand together");
        }
        if self.disguised_length.is_some_and(|length| self.content_length != Some(length)) {
            return malformed("Content_Length must not contradict the message's length");
        }
        let framing = if self.chunked { Framing::Chunked } else { Framing::Length(self.content_length.unwrap_or(0)) };
        Ok(Done {
            octets: self.line,
            framing,
            close: self.close || !(request.is_http11 || self.keep_alive),
            may_upgrade: request.is_connect || self.is_websocket(request, framing),
        })
    }

    fn is_websocket(&self, request: &RequestLine, framing: Framing) -> bool {
        request.is_get
            && request.is_http11
            && framing == Framing::Length(0)
            && !self.close
            && self.connection_upgrade
            && self.websocket
            && self.websocket_key
            && self.websocket_version
    }
}

/// `method SP request-target SP HTTP-version` (RFC 9112 §3), one SP each, judged from left to right. A line that is not
/// `complete` is judged as far as it goes.
fn request_line(octets: &[u8], line: Range<usize>, targets: Targets, complete: bool) -> Result<Option<RequestLine>, Violation> {
    let text = &octets[line.clone()];
    let mut parts = text.splitn(3, |&octet| octet == b' ');
    let (method, target, version) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let is_begun = complete || !text.is_empty();
    if is_begun && !is_token(method) {
        return malformed("a request line must begin with a method, which is a token");
    }
    let Some(target) = target else {
        return if complete { malformed("a request line must have a method, a target and a version") } else { Ok(None) };
    };
    let is_connect = method == b"CONNECT";
    if method == b"TRACE" || (is_connect && targets == Targets::Server) {
        return malformed("CONNECT and TRACE are not served");
    }
    if target.len() > MAX_TARGET {
        return Err(Violation::HeadTooLarge);
    }
    let Some(version) = version else {
        return if complete { malformed("a request line must have a method, a target and a version") } else { Ok(None) };
    };
    let authority = match target {
        _ if is_connect && is_authority(target) => None,
        _ if is_connect => return malformed("the target of CONNECT must be a host and a port"),
        [b'/' | b'*', ..] if targets == Targets::Proxy => {
            return malformed("a proxy must be asked with an absolute-form target or CONNECT");
        }
        b"*" if method == b"OPTIONS" => None,
        [b'/', ..] if is_origin_form(target) => None,
        _ => {
            let start = line.start + method.len() + 1;
            let authority = absolute_form(target)?;
            Some(start + authority.start..start + authority.end)
        }
    };
    let is_http11 = version == b"HTTP/1.1";
    let is_served = is_http11 || version == b"HTTP/1.0" || (!complete && b"HTTP/1.".starts_with(version));
    if !is_served {
        return malformed("the version must be HTTP/1.1 or HTTP/1.0, directly behind one space");
    }
    Ok(complete.then_some(RequestLine { is_get: method == b"GET", is_connect, is_http11, authority }))
}

/// `http(s)://authority[/path][?query]`: where the authority stands.
fn absolute_form(target: &[u8]) -> Result<Range<usize>, Violation> {
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    let Some(scheme) = scheme else {
        return malformed("a target must be a path of printable ASCII, an http URI, or `*` for OPTIONS");
    };
    let rest = &target[scheme.len()..];
    let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    if !is_authority(&rest[..end]) || !(rest[end..].is_empty() || is_origin_form(&rest[end..])) {
        return malformed("an absolute-form target must be http://host[:port] and a path, without userinfo or fragment");
    }
    Ok(scheme.len()..scheme.len() + end)
}

/// `1*DIGIT` without a leading zero (octal to some) and within what every implementation can count (RFC 9110 §8.6).
fn content_length(value: &[u8]) -> Result<u64, Violation> {
    let is_plain = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit) && (value[0] != b'0' || value.len() == 1);
    if !is_plain {
        return malformed("Content-Length must be one decimal number");
    }
    Ok(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// `name`, or `name` with `_` for `-`.
fn is_name_or_disguise(octets: &[u8], name: &[u8]) -> bool {
    octets.iter().zip(name).all(|(&octet, &expected)| octet.eq_ignore_ascii_case(&expected) || (octet == b'_' && expected == b'-'))
}
