//! Takes the records of an answer; leaves out of HTTPS and SVCB records what Encrypted Client Hello needs (RFC 9848): a ClientHello that hides
//! its host is refused on its way out, since nobody could judge it. Without the keys a client does not try.

use hickory_proto::{
    rr::{
        RData, Record, RecordType,
        rdata::svcb::{Mandatory, SVCB, SvcParamKey, SvcParamValue},
    },
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
