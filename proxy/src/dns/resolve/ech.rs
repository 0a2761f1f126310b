//! Takes the records of an answer; leaves out of HTTPS and SVCB records what Encrypted Client Hello needs (RFC 9848): a ClientHello that hides
//! its host is refused on its way out, since nobody could judge it. Without the keys a client does not try.

use hickory_proto::rr::{
    RData, Record, RecordType,
    rdata::svcb::{Mandatory, SVCB, SvcParamKey, SvcParamValue},
};

/// Whether there was anything. The signatures of a changed record set go too: they would not verify.
pub(super) fn strip(answers: &mut Vec<Record>) -> bool {
    let mut changed = Vec::new();
    for record in answers.iter_mut() {
        let rtype = record.record_type();
        let svcb = match &mut record.data {
            RData::HTTPS(https) => &mut https.0,
            RData::SVCB(svcb) => svcb,
            _ => continue,
        };
        if strip_one(svcb) {
            changed.push((record.name.clone(), rtype));
        }
    }
    if !changed.is_empty() {
        answers.retain(|record| !changed.iter().any(|(owner, rtype)| record.name == *owner && covers(record, *rtype)));
    }
    !changed.is_empty()
}

fn strip_one(svcb: &mut SVCB) -> bool {
    let before = svcb.svc_params.len();
    svcb.svc_params.retain(|(key, _)| *key != SvcParamKey::EchConfigList);
    if svcb.svc_params.len() == before {
        return false;
    }
    // A list of mandatory keys names none that is missing, and at least one (RFC 9460 §8).
    svcb.svc_params.retain_mut(|(_, value)| match value {
        SvcParamValue::Mandatory(Mandatory(keys)) => {
            keys.retain(|key| *key != SvcParamKey::EchConfigList);
            !keys.is_empty()
        }
        _ => true,
    });
    true
}

/// Whether the record is a signature of that type's records (RFC 4034 §3.1.1).
fn covers(record: &Record, rtype: RecordType) -> bool {
    match &record.data {
        RData::Unknown { code: RecordType::RRSIG, rdata } => rdata.anything.starts_with(&u16::from(rtype).to_be_bytes()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::{
        Name,
        rdata::{
            A, HTTPS, NULL,
            svcb::{Alpn, EchConfigList, Unknown},
        },
    };

    use super::*;

    fn record(owner: &str, data: RData) -> Record {
        Record::from_rdata(Name::from_ascii(owner).unwrap(), 60, data)
    }

    fn service(params: &str) -> SVCB {
        let param = |param: &str| match param.split_once('=').unwrap_or((param, "")) {
            ("alpn", id) => (SvcParamKey::Alpn, SvcParamValue::Alpn(Alpn(vec![id.to_owned()]))),
            ("ech", _) => (SvcParamKey::EchConfigList, SvcParamValue::EchConfigList(EchConfigList(vec![0, 1, 2, 3]))),
            ("mandatory", keys) => {
                let keys = keys.split('+').map(|key| if key == "ech" { SvcParamKey::EchConfigList } else { SvcParamKey::Alpn });
                (SvcParamKey::Mandatory, SvcParamValue::Mandatory(Mandatory(keys.collect())))
            }
            _ => (SvcParamKey::Key(65280), SvcParamValue::Unknown(Unknown(vec![7]))),
        };
        SVCB::new(1, Name::root(), params.split(' ').filter(|param| !param.is_empty()).map(param).collect())
    }

    fn signature(owner: &str, of: RecordType) -> Record {
        let rdata = [&u16::from(of).to_be_bytes()[..], &[13; 40]].concat();
        record(owner, RData::Unknown { code: RecordType::RRSIG, rdata: NULL::with(rdata) })
    }

    #[test]
    fn the_keys_go_and_nothing_else() {
        for (params, left) in [
            ("", None),
            ("alpn=h2", None),
            ("mandatory=alpn alpn=h2", None),
            ("ech", Some("")),
            ("alpn=h2 ech key65280", Some("alpn=h2 key65280")),
            ("mandatory=ech ech", Some("")),
            ("mandatory=alpn+ech alpn=h2 ech", Some("mandatory=alpn alpn=h2")),
        ] {
            let of_both = |params| vec![record("q.", RData::HTTPS(HTTPS(service(params)))), record("q.", RData::SVCB(service(params)))];
            let mut answers = of_both(params);
            assert_eq!(strip(&mut answers), left.is_some(), "{params}");
            assert_eq!(answers, of_both(left.unwrap_or(params)), "{params}");
        }
    }

    #[test]
    fn signatures_of_what_was_changed_go_too() {
        let https = |owner, params| record(owner, RData::HTTPS(HTTPS(service(params))));
        let kept = [
            record("q.", RData::A(A::new(192, 0, 2, 1))),
            signature("q.", RecordType::A),
            https("other.", "alpn=h2"),
            signature("other.", RecordType::HTTPS),
        ];
        let mut answers = kept.to_vec();
        answers.extend([https("q.", "alpn=h2"), https("q.", "ech"), signature("q.", RecordType::HTTPS)]);
        assert!(strip(&mut answers));
        assert_eq!(answers, [&kept[..], &[https("q.", "alpn=h2"), https("q.", "")]].concat());
        assert!(!strip(&mut answers));
    }

    /// As signatures come off the wire.
    #[test]
    fn a_signature_that_was_read_is_known() {
        use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};
        let read = Record::from_bytes(&signature("q.", RecordType::HTTPS).to_bytes().unwrap()).unwrap();
        assert!(covers(&read, RecordType::HTTPS) && !covers(&read, RecordType::A));
    }
}
