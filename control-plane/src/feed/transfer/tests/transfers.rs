//! Transfer after transfer, and what is told of them.

use std::collections::BTreeMap;

use tokio::{net::UdpSocket, sync::mpsc::Receiver, time::timeout};

use super::*;
use crate::feed::transfer::{Kept, TransferEvent, Transfers};

struct Run {
    server: Server,
    transfers: Transfers,
    events: Receiver<TransferEvent>,
    dir: tempfile::TempDir,
}

impl Run {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (transfers, events) = Transfers::new(dir.path());
        Self { server: Server::start().await, transfers, events, dir }
    }

    fn want(&mut self, primary: &Arc<Primary>) {
        self.transfers.reconcile(BTreeMap::from([("feed".into(), primary.clone())]));
    }

    async fn event(&mut self) -> TransferEvent {
        timeout(PATIENCE, self.events.recv()).await.unwrap().unwrap()
    }

    fn kept(&self) -> Kept {
        Kept::new(self.dir.path(), "feed")
    }

    async fn notify(&self, listener: SocketAddr) -> Message {
        let mut message = Message::query();
        message.metadata.op_code = hickory_proto::op::OpCode::Notify;
        message.add_query(Query::query(name(ZONE), RecordType::SOA));
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(&message.to_vec().unwrap(), listener).await.unwrap();
        let mut answer = [0; 512];
        let length = timeout(PATIENCE, socket.recv(&mut answer)).await.unwrap().unwrap();
        Message::from_vec(&answer[..length]).unwrap()
    }
}

fn changed(serial: u32) -> TransferEvent {
    TransferEvent::Changed { zone: "feed".into(), serial }
}

#[tokio::test]
async fn a_notification_makes_the_change_come_now() {
    let mut run = Run::new().await;
    run.server.says(RecordType::AXFR, Reply::new("7 bad 7"));
    let primary = run.server.primary(None);
    run.want(&primary);
    assert_eq!(run.event().await, changed(7));
    let listener = run.transfers.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    run.server.says(RecordType::SOA, Reply::new("8"));
    run.server.says(RecordType::IXFR, Reply::new("8 7 bad 8 new 8"));
    assert_eq!(run.notify(listener).await.metadata.response_code, ResponseCode::NoError);
    assert_eq!(run.event().await, changed(8));
    assert_eq!(run.kept().shown(), ["8", "new"]);
    // The same again is no reason to transfer it anew.
    run.want(&primary);
    assert_eq!(run.server.asked().len(), 3);
    // Of a zone that is gone nobody is told.
    run.transfers.reconcile(BTreeMap::new());
    assert_eq!(run.notify(listener).await.metadata.response_code, ResponseCode::Refused);
    assert!(!run.kept().path().exists());
}

#[tokio::test]
async fn a_fault_is_told_with_what_stands_and_then_that_it_is_mended() {
    let mut run = Run::new().await;
    run.server.says(RecordType::AXFR, Reply::new("").twisted(Twist::Rcode(ResponseCode::Refused)));
    let primary = run.server.primary(None);
    run.want(&primary);
    let failed = |why: &str| TransferEvent::Failed { zone: "feed".into(), message: format!("{primary}: {why}") };
    assert_eq!(run.event().await, failed("the answer says Query Refused; no zone was transferred yet"));
    run.transfers.tried().await;
    let listener = run.transfers.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    run.server.says(RecordType::AXFR, Reply::new("7 bad 7"));
    run.notify(listener).await;
    assert_eq!(run.event().await, changed(7));
    assert_eq!(run.event().await, TransferEvent::Recovered { zone: "feed".into() });
    run.server.says(RecordType::SOA, Reply::new("6"));
    run.notify(listener).await;
    let older = "the transfer has serial 6, which is not newer than 7, the one that stands; serial 7 stands";
    assert_eq!(run.event().await, failed(older));
    assert_eq!(run.kept().shown(), ["7", "bad"]);
}

#[tokio::test]
async fn a_zone_outlives_its_primary_and_the_process() {
    let mut run = Run::new().await;
    run.server.says(RecordType::AXFR, Reply::new("7 bad 7"));
    let primary = run.server.primary(None);
    run.want(&primary);
    assert_eq!(run.event().await, changed(7));
    // Nobody answers any more, and everything begins anew.
    run.server.task.abort();
    (run.transfers, run.events) = Transfers::new(run.dir.path());
    run.want(&primary);
    let TransferEvent::Failed { message, .. } = run.event().await else { panic!("it cannot be had") };
    assert!(message.ends_with("; serial 7 stands"), "{message}");
    assert_eq!(run.kept().shown(), ["7", "bad"]);
    // Another server of the same zone takes it up from there.
    let other = Server::start().await;
    other.says(RecordType::SOA, Reply::new("8"));
    other.says(RecordType::IXFR, Reply::new("8 7 8 new 8"));
    run.want(&other.primary(None));
    assert_eq!(run.event().await, changed(8));
    assert_eq!(run.kept().shown(), ["8", "bad", "new"]);
}

/// A control plane that is killed while it writes removes nothing.
#[tokio::test]
async fn what_was_left_half_written_goes_at_the_next_start() {
    let mut run = Run::new().await;
    run.server.says(RecordType::AXFR, Reply::new("7 bad 7"));
    run.want(&run.server.primary(None));
    assert_eq!(run.event().await, changed(7));
    let draft = run.kept().path().with_file_name(".draft-x1y2z3");
    std::fs::write(&draft, "half of a zone").unwrap();
    drop(Transfers::new(run.dir.path()));
    assert!(!draft.exists());
    assert_eq!(run.kept().shown(), ["7", "bad"]);
}
