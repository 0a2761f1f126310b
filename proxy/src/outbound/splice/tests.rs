//! Real sockets on both sides.

use std::{net::SocketAddr, pin::pin, task::Poll};

use futures_util::poll;
use tokio::net::TcpListener;

use super::*;

/// More than all buffers between the ends hold.
const BULK: usize = 24 * 1024 * 1024;

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (ours.unwrap(), theirs.unwrap().0)
}

/// The workload, the two ends that are joined, and the server.
async fn ends() -> (TcpStream, Stream, TcpStream, TcpStream) {
    let (workload, downstream) = pair().await;
    let (upstream, server) = pair().await;
    (workload, downstream.into(), upstream, server)
}

/// Joins them and closes both, as whoever joins two ends does.
async fn joined(mut downstream: Stream, mut upstream: TcpStream, initial: Vec<u8>, octets: &Octets) -> io::Result<()> {
    splice(&mut downstream, &mut upstream, initial, octets).await
}

/// Octets in which no two places look the same.
fn octets(length: usize, seed: u64) -> Vec<u8> {
    (0..length.div_ceil(8) as u64).flat_map(|i| ((i ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes()).take(length).collect()
}

async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    all
}

#[tokio::test]
async fn all_octets_arrive_in_their_order_both_ways() {
    let (workload, downstream, upstream, server) = ends().await;
    let (initial, request, answer) = (octets(3000, 1), octets(BULK, 2), octets(BULK + 7, 3));
    let counted = Octets::default();
    let talk = |stream: TcpStream, said: Vec<u8>| async move {
        let (mut read, mut write) = stream.into_split();
        let say = async move {
            write.write_all(&said).await.unwrap();
            write.shutdown().await.unwrap();
        };
        tokio::join!(read_all(&mut read), say).0
    };
    let (outcome, heard, asked) = tokio::join!(
        joined(downstream, upstream, initial.clone(), &counted),
        talk(workload, request.clone()),
        talk(server, answer.clone())
    );
    outcome.unwrap();
    assert!(heard == answer && asked == [initial, request].concat());
    assert_eq!((counted.sent.get(), counted.received.get()), (3000 + BULK as u64, BULK as u64 + 7));
}

#[tokio::test]
async fn the_end_of_one_direction_leaves_the_other_open() {
    let (mut workload, downstream, upstream, mut server) = ends().await;
    let counted = Octets::default();
    let answer = octets(BULK, 4);
    let talk = async {
        workload.write_all(b"all there is").await.unwrap();
        workload.shutdown().await.unwrap();
        assert_eq!(read_all(&mut server).await, b"all there is");
        let say = async {
            server.write_all(&answer).await.unwrap();
            server.shutdown().await.unwrap();
        };
        assert!(tokio::join!(read_all(&mut workload), say).0 == answer);
    };
    let (outcome, ()) = tokio::join!(joined(downstream, upstream, Vec::new(), &counted), talk);
    outcome.unwrap();
}

#[tokio::test]
async fn a_reset_of_one_end_is_a_reset_of_the_other() {
    for from_server in [true, false] {
        let (workload, mut downstream, mut upstream, server) = ends().await;
        let (breaks, mut stays) = if from_server { (server, workload) } else { (workload, server) };
        SockRef::from(&breaks).set_linger(Some(Duration::ZERO)).unwrap();
        drop(breaks);
        let error = splice(&mut downstream, &mut upstream, Vec::new(), &Octets::default()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        reset(&downstream, &upstream);
        drop((downstream, upstream));
        let error = stays.read(&mut [0; 16]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "from the server: {from_server}");
    }
}

#[tokio::test]
async fn what_a_cut_connection_left_in_a_pipe_reaches_no_other() {
    let (workload, mut downstream, mut upstream, mut server) = ends().await;
    let counted = Octets::default();
    let write = |stream: TcpStream, octets: Vec<u8>| async move {
        let mut stream = stream;
        stream.write_all(&octets).await.unwrap();
        stream.shutdown().await.unwrap();
        stream
    };
    {
        let mut stalled = pin!(splice(&mut downstream, &mut upstream, Vec::new(), &counted));
        let mut writing = pin!(write(workload, octets(BULK, 5)));
        // The server reads a little, so that it is bulk, and then no more.
        let mut head = vec![0; 8 * SCRATCH];
        let mut reading = pin!(server.read_exact(&mut head));
        while poll!(&mut reading).is_pending() {
            assert!(poll!(&mut stalled).is_pending() && poll!(&mut writing).is_pending());
            tokio::task::yield_now().await;
        }
        for _ in 0..1000 {
            let moved = counted.sent.get();
            assert_eq!(poll!(&mut stalled).map(|_| ()), Poll::Pending);
            let _ = poll!(&mut writing);
            tokio::task::yield_now().await;
            if moved == counted.sent.get() && moved > head_room() {
                break;
            }
        }
    }
    let (workload, downstream, upstream, mut server) = ends().await;
    let request = octets(BULK, 6);
    let writing = async { drop(write(workload, request.clone()).await) };
    let answering = async {
        let asked = read_all(&mut server).await;
        drop(server);
        asked
    };
    let counted = Octets::default();
    let (outcome, (), asked) = tokio::join!(joined(downstream, upstream, Vec::new(), &counted), writing, answering);
    outcome.unwrap();
    assert!(asked == request);
}

fn head_room() -> u64 {
    8 * SCRATCH as u64
}

#[tokio::test]
async fn ends_that_the_kernel_cannot_join_are_copied() {
    let (mut workload, downstream) = tokio::io::duplex(1000);
    let (upstream, mut server) = tokio::io::duplex(1000);
    let request = octets(100_000, 7);
    let count = Cell::new(0);
    let say = async {
        workload.write_all(&request[10..]).await.unwrap();
        workload.shutdown().await.unwrap();
    };
    let (outcome, (), asked) = tokio::join!(copy(downstream, upstream, request[..10].to_vec(), &count), say, read_all(&mut server));
    outcome.unwrap();
    assert!(asked == request && count.get() == 100_000);
}

#[tokio::test(start_paused = true)]
async fn a_connection_on_which_nothing_moves_is_cut_in_the_end() {
    let (_workload, mut downstream, mut upstream, _server) = ends().await;
    let started = tokio::time::Instant::now();
    let error = splice(&mut downstream, &mut upstream, Vec::new(), &Octets::default()).await.unwrap_err();
    assert_eq!((error.kind(), started.elapsed().as_secs()), (io::ErrorKind::TimedOut, IDLE.as_secs()));
}
