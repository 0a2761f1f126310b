use hickory_proto::rr::rdata::{A, CNAME, NS, NULL, SOA};

use super::*;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn question(text: &str, qtype: RecordType) -> Question {
    Question { name: name(text), qtype, dnssec_ok: false, checking_disabled: false }
}

fn a(owner: &str, last: u8) -> Record {
    Record::from_rdata(name(owner), 300, RData::A(A::new(192, 0, 2, last)))
}

fn cname(owner: &str, to: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(to))))
}

fn other(owner: &str, rtype: u16) -> Record {
    let data = RData::Unknown { code: RecordType::from(rtype), rdata: NULL::with(vec![1, 2, 3]) };
    Record::from_rdata(name(owner), 100, data)
}

fn soa(owner: &str, ttl: u32, minimum: u32) -> Record {
    Record::from_rdata(name(owner), ttl, RData::SOA(SOA::new(name("ns."), name("host."), 1, 2, 3, 4, minimum)))
}

fn ns(owner: &str) -> Record {
    Record::from_rdata(name(owner), 100, RData::NS(NS(name("ns.example."))))
}

fn reply(asked: &str, qtype: RecordType, rcode: ResponseCode, answers: Vec<Record>, authorities: Vec<Record>) -> Message {
    let mut message = Message::response(7, OpCode::Query);
    message.metadata.response_code = rcode;
    message.add_query(DnsQuestion::query(name(asked), qtype));
    message.answers = answers;
    message.authorities = authorities;
    message
}

/// What one message leads to: rcode, owners and types of the answer, owners of the authorities, lifetime; or the next name, or the lie.
fn follow(question: &Question, message: Message) -> String {
    match super::follow(question, message) {
        Ok(Resolved { next: Some(next), lifetime, .. }) => format!("ask {next} {lifetime}"),
        Ok(Resolved { message, lifetime, .. }) => {
            let told = |records: &[Record]| -> String {
                records.iter().map(|record| format!(" {}{}", record.name, record.record_type())).collect()
            };
            format!("{}{} |{} {lifetime}", message.metadata.response_code, told(&message.answers), told(&message.authorities))
        }
        Err(lie) => format!("{lie:?}"),
    }
}

#[test]
fn records_that_answer_are_kept_in_the_order_of_the_aliases() {
    use RecordType as T;
    use ResponseCode::{NXDomain, NoError};
    let dname = other("d.", 39);
    for (what, qtype, rcode, answers, authorities, expected) in [
        ("an address", T::A, NoError, vec![a("q.", 1), a("q.", 2)], vec![ns("q.")], "No Error q.A q.A | 300"),
        ("another's address", T::A, NoError, vec![a("q.", 1), a("evil.", 2)], vec![], "No Error q.A | 300"),
        ("another type", T::A, NoError, vec![a("q.", 1), other("q.", 65400)], vec![], "No Error q.A | 300"),
        ("an unknown type", T::from(65400), NoError, vec![other("q.", 65400)], vec![], "No Error q.Unknown | 100"),
        (
            "aliases in disorder",
            T::A,
            NoError,
            vec![a("y.", 1), cname("x.", "y."), cname("q.", "x.")],
            vec![],
            "No Error q.CNAME x.CNAME y.A | 60",
        ),
        (
            "a second alias",
            T::A,
            NoError,
            vec![cname("q.", "x."), cname("q.", "evil."), a("x.", 1), a("evil.", 2)],
            vec![],
            "No Error q.CNAME x.A | 60",
        ),
        ("the alias itself", T::CNAME, NoError, vec![cname("q.", "x."), a("x.", 1)], vec![], "No Error q.CNAME | 60"),
        ("a whole subtree", T::A, NoError, vec![dname, cname("q.d.", "q.e."), a("q.e.", 1)], vec![], "OtherQuestion"),
        ("an alias that stops", T::A, NoError, vec![cname("q.", "x.")], vec![], "ask x. 60"),
        ("an alias to nothing", T::A, NXDomain, vec![cname("q.", "x.")], vec![soa(".", 900, 30)], "Non-Existent Domain q.CNAME | .SOA 30"),
        ("an alias to another type", T::AAAA, NoError, vec![cname("q.", "x.")], vec![soa("x.", 900, 900)], "No Error q.CNAME | x.SOA 60"),
        ("nothing of the kind", T::AAAA, NoError, vec![], vec![soa("q.", 20, 900), ns("q.")], "No Error | q.SOA 20"),
        ("no such name", T::A, NXDomain, vec![], vec![soa(".", 90_000, 90_000)], "Non-Existent Domain | .SOA 3600"),
        ("no such name, without proof", T::A, NXDomain, vec![], vec![], "Non-Existent Domain | 0"),
        ("the SOA of another zone", T::A, NXDomain, vec![], vec![soa("evil.", 900, 900)], "Non-Existent Domain | 0"),
        ("nothing at all", T::A, NoError, vec![], vec![], "No Error | 0"),
        ("a referral", T::A, NoError, vec![], vec![ns("q.")], "Referral"),
        ("a loop", T::A, NoError, vec![cname("q.", "x."), cname("x.", "q.")], vec![], "EndlessChain"),
        ("a loop of one", T::A, NoError, vec![cname("q.", "q.")], vec![], "EndlessChain"),
    ] {
        assert_eq!(
            follow(
                &question("q.", qtype),
                reply(if what == "a whole subtree" { "q.d." } else { "Q." }, qtype, rcode, answers, authorities)
            ),
            expected,
            "{what}"
        );
    }
}

#[test]
fn a_dname_goes_before_the_alias_that_was_made_of_it() {
    let message = reply("q.d.", RecordType::A, ResponseCode::NoError, vec![cname("q.d.", "q.e."), a("q.e.", 1), other("d.", 39)], vec![]);
    assert_eq!(follow(&question("q.d.", RecordType::A), message), "No Error d.DNAME q.d.CNAME q.e.A | 60");
}

#[test]
fn signatures_are_for_those_who_want_them() {
    let answers = || vec![cname("q.", "x."), other("q.", 46), a("x.", 1), other("x.", 46), other("evil.", 46)];
    let authorities = || vec![other("x.", 47), other("x.", 46), ns("x.")];
    for (dnssec_ok, expected) in [(false, "No Error q.CNAME x.A | 60"), (true, "No Error q.CNAME q.RRSIG x.A x.RRSIG | x.NSEC x.RRSIG 60")]
    {
        let question = Question { dnssec_ok, ..question("q.", RecordType::A) };
        let message = reply("q.", RecordType::A, ResponseCode::NoError, answers(), authorities());
        assert_eq!(follow(&question, message), expected);
    }
}

#[test]
fn an_answer_to_another_question_is_none() {
    let answers = || vec![a("q.", 1)];
    let mut without_question = reply("q.", RecordType::A, ResponseCode::NoError, answers(), vec![]);
    without_question.queries.clear();
    let mut update = reply("q.", RecordType::A, ResponseCode::NoError, answers(), vec![]);
    update.metadata.op_code = OpCode::Update;
    for message in [
        reply("x.", RecordType::A, ResponseCode::NoError, answers(), vec![]),
        reply("q.", RecordType::AAAA, ResponseCode::NoError, answers(), vec![]),
        without_question,
        update,
        Message::query(),
    ] {
        assert_eq!(follow(&question("q.", RecordType::A), message), "OtherQuestion");
    }
}

#[test]
fn chains_have_an_end() {
    let link = |i: usize| cname(&format!("n{i}."), &format!("n{}.", i + 1));
    for (links, expected) in [(MAX_CHAIN, "No Error"), (MAX_CHAIN + 1, "EndlessChain"), (100, "EndlessChain")] {
        let mut answers: Vec<Record> = (0..links).map(link).collect();
        answers.push(a(&format!("n{links}."), 1));
        let told = follow(&question("n0.", RecordType::A), reply("n0.", RecordType::A, ResponseCode::NoError, answers, vec![]));
        assert!(told.starts_with(expected), "{links}: {told}");
    }
}

#[test]
fn ttls_are_told_as_long_as_they_may_hold() {
    let with_ttl = |ttl| Record::from_rdata(name("q."), ttl, RData::A(A::new(192, 0, 2, 1)));
    for (ttl, lifetime) in [(0, 0), (1, 1), (86_401, 86_400), (1 << 31, 0), (u32::MAX, 0)] {
        let message = reply("q.", RecordType::A, ResponseCode::NoError, vec![with_ttl(ttl), a("q.", 2)], vec![]);
        assert_eq!(follow(&question("q.", RecordType::A), message), format!("No Error q.A q.A | {}", lifetime.min(300)), "{ttl}");
    }
}
