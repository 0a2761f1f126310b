//! The listener's sockets.

use std::time::Duration;

use hickory_proto::{
    op::Message,
    rr::{Name, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::watch,
    task::{JoinHandle, spawn_local},
    time::Instant,
};

use super::peers::*;
use crate::{
    dns::{
        limits::{MAX_CONNECTIONS, MAX_PIPELINED, TCP_IDLE, UDP_BATCH},
        listener,
    },
    listeners::{Drain, ListenerKey, Role, Route, Serve, Stop},
};

struct Served {
    address: std::net::SocketAddr,
    stop: watch::Sender<Option<Stop>>,
    ended: JoinHandle<std::io::Result<()>>,
}

fn serve(rig: &Rig) -> Served {
    serve_on(rig, "127.0.0.1:0")
}

fn serve_on(rig: &Rig, address: &str) -> Served {
    let (udp, socket) = listener::bind(address.parse().unwrap(), false).unwrap();
    let address = udp.local_addr().unwrap();
    let (stop, stopping) = watch::channel(None);
    let key = ListenerKey { role: Role::Dns, listen: address, nth: 0 };
    let serve = Serve { key, socket, udp: Some(udp), route: Route::Dns, drain: Drain::new(stopping) };
    Served { address, stop, ended: spawn_local(listener::serve(serve, rig.dns.clone())) }
}

async fn write(stream: &mut TcpStream, messages: &[Message]) {
    let mut octets = Vec::new();
    for message in messages {
        let packet = message.to_vec().unwrap();
        octets.extend((packet.len() as u16).to_be_bytes());
        octets.extend(packet);
    }
    stream.write_all(&octets).await.unwrap();
}

async fn read(stream: &mut TcpStream) -> Message {
    let mut packet = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut packet).await.unwrap();
    Message::from_vec(&packet).unwrap()
}

#[test]
fn datagrams_are_answered_at_once_or_when_the_answer_comes() {
    run(async {
        let stub = Stub::start(|asked| asked.answer(vec![a(&asked.name(), 60, 1)]));
        let served = serve(&Rig::new(vec![stub.upstream()]));
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(served.address).await.unwrap();
        let mut packet = [0; 4096];
        for name in ["a.", "a.", "b.", "localhost."] {
            let asked = query(name, RecordType::A);
            client.send(&asked.to_vec().unwrap()).await.unwrap();
            let length = client.recv(&mut packet).await.unwrap();
            let answer = Message::from_vec(&packet[..length]).unwrap();
            assert_eq!((answer.metadata.id, answer.answers.len()), (asked.metadata.id, 1), "{name}");
        }
        assert_eq!(stub.asked.get(), 2);
        served.stop.send_replace(Some(Stop::within(Instant::now() + Duration::from_secs(5))));
        served.ended.await.unwrap().unwrap();
    });
}

#[test]
fn a_burst_beyond_a_batch_is_answered_to_whom_it_came_from() {
    const BURST: u16 = 3 * UDP_BATCH as u16 + 1;
    run(async {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(first) = UdpSocket::bind(address).await else {
                println!("skipped: no {address}");
                continue;
            };
            let served = serve_on(&Rig::new(vec![]), address);
            let clients = [first, UdpSocket::bind(address).await.unwrap()];
            for id in 0..BURST {
                for (client, name) in clients.iter().zip(["a.localhost.", "b.localhost."]) {
                    let mut asked = query(name, RecordType::A);
                    asked.metadata.id = id;
                    client.send_to(&asked.to_vec().unwrap(), served.address).await.unwrap();
                }
            }
            for (client, name_asked) in clients.iter().zip(["a.localhost.", "b.localhost."]) {
                let mut packet = [0; 4096];
                let mut ids = Vec::new();
                for _ in 0..BURST {
                    let (length, peer) = client.recv_from(&mut packet).await.unwrap();
                    let answer = Message::from_vec(&packet[..length]).unwrap();
                    assert_eq!((peer, &answer.queries[0].name), (served.address, &name(name_asked)));
                    ids.push(answer.metadata.id);
                }
                assert_eq!(ids, (0..BURST).collect::<Vec<_>>(), "{address}");
            }
        }
    });
}

#[test]
fn clients_that_have_gone_and_packets_that_are_none_end_nothing() {
    run(async {
        let stub = Stub::start(|asked| asked.answer(vec![a(&asked.name(), 60, 1)]));
        let served = serve(&Rig::new(vec![stub.upstream()]));
        for i in 0..20 {
            // Its port is closed when the answer comes: the kernel is told so by ICMP.
            let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            gone.send_to(&query(&format!("n{i}."), RecordType::A).to_vec().unwrap(), served.address).await.unwrap();
        }
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(served.address).await.unwrap();
        for packet in [&[][..], &[0; 11], &[0xff; 12], &[0xff; 5000]] {
            client.send(packet).await.unwrap();
        }
        client.send(&query("a.", RecordType::A).to_vec().unwrap()).await.unwrap();
        let mut packet = [0; 4096];
        let length = client.recv(&mut packet).await.unwrap();
        assert_eq!(Message::from_vec(&packet[..length]).unwrap().answers.len(), 1);
    });
}

#[test]
fn queries_of_one_connection_overtake_each_other() {
    run(async {
        let stub = Stub::start(|asked| match asked.name().as_str() {
            "slow." => None,
            name => asked.answer(vec![a(name, 60, 1)]),
        });
        let served = serve(&Rig::new(vec![stub.upstream()]));
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let asked = ["slow.", "a.", "b.", "localhost."].map(|name| query(name, RecordType::A));
        write(&mut stream, &asked).await;
        let mut answered: Vec<Name> = Vec::new();
        for _ in 0..3 {
            let answer = read(&mut stream).await;
            let question = &answer.queries[0];
            let of = asked.iter().find(|asked| asked.metadata.id == answer.metadata.id && asked.queries[0] == *question);
            assert!(of.is_some() && answer.answers.len() == 1);
            answered.push(question.name.clone());
        }
        assert!(!answered.contains(&name("slow.")), "{answered:?}");
    });
}

#[test]
fn a_query_of_any_length_and_in_any_pieces_is_read() {
    run(async {
        let stub = Stub::start(|asked| asked.answer(vec![a(&asked.name(), 60, 1)]));
        let served = serve(&Rig::new(vec![stub.upstream()]));
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        // 64 KiB: padding in the OPT record.
        let mut padded = query("a.", RecordType::A);
        let bare = padded.to_vec().unwrap().len();
        let padding = vec![0; 65535 - bare - 4];
        padded.edns.as_mut().unwrap().options_mut().insert(hickory_proto::rr::rdata::opt::EdnsOption::Unknown(12, padding));
        assert_eq!(padded.to_vec().unwrap().len(), 65535);
        write(&mut stream, &[padded]).await;
        assert_eq!(read(&mut stream).await.answers.len(), 1);
        let packet = query("b.", RecordType::A).to_vec().unwrap();
        for octet in [&(packet.len() as u16).to_be_bytes()[..], &packet].concat() {
            stream.write_all(&[octet]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(read(&mut stream).await.answers.len(), 1);
        // Half a query and the end: the connection ends too.
        stream.write_all(&[0, 100, 1, 2, 3]).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    });
}

#[test]
fn answers_that_are_on_their_way_are_sent_after_the_client_has_said_its_last() {
    run(async {
        let stub = Stub::start(|asked| asked.answer(vec![a(&asked.name(), 60, 1)]));
        let served = serve(&Rig::new(vec![stub.upstream()]));
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let many: Vec<Message> = (0..3 * MAX_PIPELINED).map(|i| query(&format!("n{i}."), RecordType::A)).collect();
        write(&mut stream, &many).await;
        stream.shutdown().await.unwrap();
        let mut ids: Vec<u16> = Vec::new();
        for _ in &many {
            ids.push(read(&mut stream).await.metadata.id);
        }
        let mut expected: Vec<u16> = many.iter().map(|message| message.metadata.id).collect();
        ids.sort_unstable();
        expected.sort_unstable();
        assert_eq!(ids, expected);
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    });
}

#[test]
fn connections_that_ask_nothing_end_and_there_are_only_so_many() {
    run_paused(async {
        let served = serve(&Rig::new(vec![]));
        let mut open = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            let mut stream = TcpStream::connect(served.address).await.unwrap();
            write(&mut stream, &[query("localhost.", RecordType::A)]).await;
            read(&mut stream).await;
            open.push(stream);
        }
        let mut late = TcpStream::connect(served.address).await.unwrap();
        assert_eq!(late.read(&mut [0; 1]).await.unwrap(), 0, "one too many");
        let begun = Instant::now();
        for stream in &mut open {
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
        }
        assert!(begun.elapsed() <= TCP_IDLE + Duration::from_secs(1));
        let mut again = TcpStream::connect(served.address).await.unwrap();
        write(&mut again, &[query("localhost.", RecordType::A)]).await;
        assert_eq!(read(&mut again).await.answers.len(), 1);
    });
}
