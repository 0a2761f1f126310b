//! One look at a primary.

use super::*;
use crate::feed::transfer::{
    TransferError,
    connection::Limits,
    fetch::{Fetch, Fetched, How},
    kept::Kept,
    soa::Serial,
};

const AXFR: RecordType = RecordType::AXFR;
const IXFR: RecordType = RecordType::IXFR;

/// A zone, and the primary that it comes from.
struct Run {
    server: Server,
    dir: tempfile::TempDir,
    tsig: Option<TsigKey>,
    limits: Limits,
}

impl Run {
    async fn new() -> Self {
        Self { server: Server::start().await, dir: tempfile::tempdir().unwrap(), tsig: None, limits: Limits::default() }
    }

    fn kept(&self) -> Kept {
        Kept::new(self.dir.path(), "feed")
    }

    async fn fetch(&self) -> Result<Fetched, TransferError> {
        let (primary, kept) = (self.server.primary(self.tsig.clone()), self.kept());
        Fetch { primary: &primary, kept: &kept, limits: self.limits }.run().await
    }

    /// What stands: the serial and the owners, in order.
    fn stands(&self) -> String {
        self.kept().shown().join(" ")
    }

    async fn begin(&self, zone: &str) {
        self.server.says(AXFR, Reply::new(zone));
        let fetched = self.fetch().await.unwrap();
        assert_eq!(fetched.how, How::Whole);
        self.server.asked();
    }
}

#[tokio::test]
async fn a_zone_comes_whole_at_first() {
    for (zone, stands) in [
        ("7 bad worse 7", "7 bad worse"),
        ("7 bad | worse | 7", "7 bad worse"),
        ("7 | bad worse | 7", "7 bad worse"),
        ("7 | | 7", "7"),
        ("7 7", "7"),
        // Not of the zone: kept as it came, and told when it is compiled.
        ("7 bad.example. 7", "7 bad.example."),
    ] {
        let run = Run::new().await;
        run.server.says(AXFR, Reply::new(zone));
        let fetched = run.fetch().await.unwrap();
        assert_eq!((fetched.how, fetched.soa.serial), (How::Whole, Serial(7)), "{zone}");
        assert_eq!(run.stands(), stands, "{zone}");
        assert_eq!(run.server.asked(), [(AXFR, false)]);
    }
}

#[tokio::test]
async fn then_its_changes_are_asked_for() {
    for (soa, ixfr, how, stands, asked) in [
        ("7", "", How::Unchanged, "7 bad worse", &[RecordType::SOA][..]),
        ("8", "8 7 bad 8 new 8", How::Changed, "8 new worse", &[RecordType::SOA, IXFR]),
        ("9", "9 7 bad | 8 bad | 8 bad 9 new | 9", How::Changed, "9 new worse", &[RecordType::SOA, IXFR]),
        ("8", "8 7 8 worse 8", How::Changed, "8 bad worse", &[RecordType::SOA, IXFR]),
        ("8", "8 7 8 8", How::Changed, "8 bad worse", &[RecordType::SOA, IXFR]),
        ("8", "8 7 bad 8 bad 8", How::Changed, "8 bad worse", &[RecordType::SOA, IXFR]),
        // The whole zone, for the primary keeps no changes.
        ("8", "8 other 8", How::Whole, "8 other", &[RecordType::SOA, IXFR]),
        ("8", "8 | other | 8", How::Whole, "8 other", &[RecordType::SOA, IXFR]),
        // Changes of another zone than the one that stands: what they say is not taken, and it is transferred anew.
        ("8", "8 7 missing 8 new 8", How::Whole, "8 whole", &[RecordType::SOA, IXFR, AXFR]),
        ("9", "9 8 bad 9 new 9", How::Whole, "8 whole", &[RecordType::SOA, IXFR, AXFR]),
        ("8", "8 7 bad bad 8 new 8", How::Whole, "8 whole", &[RecordType::SOA, IXFR, AXFR]),
        ("8", "8 7 bad 8 new", How::Whole, "8 whole", &[RecordType::SOA, IXFR, AXFR]),
    ] {
        let run = Run::new().await;
        run.begin("7 bad worse 7").await;
        run.server.says(RecordType::SOA, Reply::new(soa));
        run.server.says(IXFR, Reply::new(ixfr));
        run.server.says(AXFR, Reply::new("8 whole 8"));
        let fetched = run.fetch().await.unwrap_or_else(|error| panic!("{ixfr}: {error}"));
        assert_eq!((fetched.how, &*run.stands()), (how, stands), "{ixfr}");
        let wanted: Vec<_> = asked.iter().map(|rtype| (*rtype, false)).collect();
        assert_eq!(run.server.asked(), wanted, "{ixfr}");
    }
}

#[tokio::test]
async fn a_primary_without_changes_is_asked_for_the_whole() {
    for twist in [Twist::Rcode(ResponseCode::NotImp), Twist::Rcode(ResponseCode::FormErr), Twist::Cut, Twist::OtherQuestion, Twist::Garbage]
    {
        let run = Run::new().await;
        run.begin("7 bad 7").await;
        run.server.says(RecordType::SOA, Reply::new("8"));
        run.server.says(IXFR, Reply::new("8 7 8 new 8").twisted(twist));
        run.server.says(AXFR, Reply::new("8 whole 8"));
        run.fetch().await.unwrap();
        assert_eq!(run.stands(), "8 whole");
    }
}

#[tokio::test]
async fn whatever_goes_wrong_leaves_the_zone_that_stands() {
    let good = || Reply::new("8 new 8");
    for (soa, axfr, wanted) in [
        ("6", good(), "the transfer has serial 6, which is not newer than 7, the one that stands"),
        ("8", Reply::new("7 new 7"), "not newer than 7"),
        ("8", Reply::new("new 8"), "does not begin with the zone's SOA record"),
        ("8", Reply::new("8 new 9"), "does not end in the SOA record that it began with"),
        ("8", Reply::new("8 new 8 more"), "goes on after its end"),
        ("8", Reply::new("8 new"), "the connection ended before the answer did"),
        ("8", good().twisted(Twist::Cut), "the connection ended before the answer did"),
        ("8", good().twisted(Twist::OtherId), "it has another ID"),
        ("8", good().twisted(Twist::OtherQuestion), "it repeats another question"),
        ("8", good().twisted(Twist::Garbage), "the answer is"),
        ("8", good().twisted(Twist::Rcode(ResponseCode::Refused)), "the answer says Query Refused"),
        ("8", Reply::new("8 new").twisted(Twist::Hold), "nothing for 300 ms"),
        ("8", Reply::new("8 | new").twisted(Twist::Endless), "an answer of more than"),
        ("8", Reply::new("8 |").twisted(Twist::Endless), "an answer of more than"),
    ] {
        let mut run = Run::new().await;
        run.begin("7 bad 7").await;
        run.limits = Limits { idle: Duration::from_millis(300), octets: 100_000, messages: 5000, ..run.limits };
        run.server.says(RecordType::SOA, Reply::new(soa));
        run.server.says(IXFR, Reply::new("").twisted(Twist::Rcode(ResponseCode::NotImp)));
        run.server.says(AXFR, axfr);
        let error = run.fetch().await.unwrap_err().to_string();
        assert!(error.contains(wanted), "{wanted}: {error}");
        assert_eq!(run.stands(), "7 bad");
        let left: Vec<_> = std::fs::read_dir(run.kept().path().parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "{wanted}: no draft is left: {left:?}");
    }
}

#[tokio::test]
async fn a_transfer_that_takes_for_ever_is_given_up() {
    let mut run = Run::new().await;
    run.limits.total = Duration::from_millis(100);
    run.server.says(AXFR, Reply::new("8 new").twisted(Twist::Hold));
    assert_eq!(run.fetch().await.unwrap_err().to_string(), "nothing for 100 ms");
    assert_eq!(run.stands(), "");
}

#[tokio::test]
async fn changes_that_are_too_long_are_transferred_whole() {
    let mut run = Run::new().await;
    run.begin("7 bad 7").await;
    run.limits.change_octets = 64;
    run.server.says(RecordType::SOA, Reply::new("8"));
    run.server.says(IXFR, Reply::new("8 7 8 one two three | four 8"));
    run.server.says(AXFR, Reply::new("8 whole 8"));
    run.fetch().await.unwrap();
    assert_eq!(run.stands(), "8 whole");
}

/// A primary that says the same long name again and again takes two octets for it.
#[tokio::test]
async fn names_count_as_what_they_are_written_out() {
    let long = ["x".repeat(60), "y".repeat(60), "z".repeat(60)].join(".");
    let records = format!("{long} a.{long} b.{long} c.{long}");
    // Four records of some 200 octets each, in a message of less than 400.
    let message = messages(&format!("8 {records}")).remove(0);
    let mut wire = Message::query();
    wire.insert_answers(message);
    assert!(wire.to_vec().unwrap().len() < 400);
    let mut run = Run::new().await;
    run.begin("7 bad 7").await;
    run.limits.octets = 700;
    run.server.says(RecordType::SOA, Reply::new("8"));
    run.server.says(IXFR, Reply::new(&format!("8 7 8 {records} 8")));
    assert_eq!(run.fetch().await.unwrap_err().to_string(), "an answer of more than 700 octets");
    run.limits.change_octets = 700;
    run.server.says(AXFR, Reply::new("8 whole 8"));
    run.fetch().await.unwrap();
    assert_eq!(run.stands(), "8 whole");
}

#[tokio::test]
async fn what_is_signed_is_believed_and_nothing_else() {
    let long = format!("7 {} | 7", "| bad ".repeat(150));
    // First, last, and one in a hundred (RFC 8945 §5.3.1).
    for (zone, sign, wanted) in [
        ("7 bad 7", Sign::Each, None),
        ("7 | bad | 7", Sign::Each, None),
        ("7 | bad | 7", Sign::Only(&[0, 2]), None),
        (&*long, Sign::Only(&[0, 100, 151]), None),
        (&*long, Sign::Only(&[0, 151]), Some("99 messages in a row without a signature")),
        ("7 bad 7", Sign::No, Some("is not signed, and must be by the key key.test.")),
        ("7 | bad | 7", Sign::Only(&[1, 2]), Some("is not signed")),
        ("7 | bad | 7", Sign::Only(&[0, 1]), Some("is not signed")),
        ("7 bad 7", Sign::With(b"another secret of 32 octets ...."), Some("a signature that is not the key's")),
        ("7 bad 7", Sign::At(-301), Some("the clocks differ")),
        ("7 bad 7", Sign::At(3600), Some("the clocks differ")),
        ("7 bad 7", Sign::At(-200), None),
        ("7 bad 7", Sign::Error(TsigError::BadKey), Some("does not know the key")),
        ("7 bad 7", Sign::Error(TsigError::BadSig), Some("the secrets differ (BADSIG)")),
        ("7 bad 7", Sign::Error(TsigError::BadTime), Some("the clocks differ (BADTIME)")),
    ] {
        let mut run = Run::new().await;
        run.tsig = Some(key(SECRET));
        run.server.says(AXFR, Reply::new(zone).signed(sign));
        let error = run.fetch().await.err().map(|error| error.to_string());
        match (&error, wanted) {
            (None, None) => assert!(run.stands().starts_with("7 bad")),
            (Some(error), Some(wanted)) if error.contains(wanted) => assert_eq!(run.stands(), "", "{error}"),
            _ => panic!("{error:?}, not {wanted:?}"),
        }
        assert_eq!(run.server.asked(), [(AXFR, true)], "who does not sign rightly is not asked again");
    }
}

#[tokio::test]
async fn a_damaged_zone_is_transferred_again() {
    let run = Run::new().await;
    run.begin("7 bad 7").await;
    let path = run.kept().path().to_owned();
    let mut octets = std::fs::read(&path).unwrap();
    let zone = ZONE.parse().unwrap();
    assert!(run.kept().compile(&zone).unwrap().is_ok());
    assert!(run.kept().compile(&"other.test".parse().unwrap()).is_none());
    for at in [0, 20, octets.len() / 2, octets.len() - 1] {
        octets[at] ^= 0x10;
        std::fs::write(&path, &octets).unwrap();
        assert!(run.kept().compile(&zone).is_none(), "octet {at}");
        octets[at] ^= 0x10;
    }
    std::fs::write(&path, &octets[..30]).unwrap();
    assert!(run.kept().compile(&zone).is_none());
    run.begin("7 bad 7").await;
    assert!(run.kept().compile(&zone).unwrap().is_ok());
}
