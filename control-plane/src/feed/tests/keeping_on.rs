//! Fetch after fetch by the clock, which the tests move.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use ringfence_policy::identify::keys::KeyFault;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use crate::feed::{
    FeedEvent,
    fetch::{FetchError, Fetched},
    kept::Kept,
    task::{Feed, Held, Task},
};

type Outcome = Result<Fetched, FetchError>;

/// A task with scripted outcomes; after the last it waits for ever.
struct Run {
    feed: Arc<Feed>,
    events: mpsc::Receiver<FeedEvent>,
    /// When each fetch began.
    began: mpsc::UnboundedReceiver<Instant>,
    start: Instant,
    dir: tempfile::TempDir,
    _task: JoinSet<()>,
}

impl Run {
    fn new(outcomes: impl IntoIterator<Item = Outcome>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let feed = Arc::new(Feed { held: watch::Sender::new(Held::default()), wishes: watch::Sender::new(()) });
        let (events_sender, events) = mpsc::channel(64);
        let (began_sender, began) = mpsc::unbounded_channel();
        let task = Task {
            issuer: "sso".into(),
            uri: "https://sso.example.com/".into(),
            feed: feed.clone(),
            kept: Kept::new(dir.path(), "sso"),
            events: events_sender,
            jitter: || 0.0,
        };
        let script = Arc::new(Mutex::new(outcomes.into_iter().collect::<VecDeque<_>>()));
        let fetch = move || {
            began_sender.send(Instant::now()).unwrap();
            let next = script.lock().unwrap().pop_front();
            async move {
                match next {
                    Some(outcome) => outcome,
                    None => std::future::pending().await,
                }
            }
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(task.run(fetch));
        Self { feed, events, began, start: Instant::now(), dir, _task: tasks }
    }

    /// Seconds from the start at which the next `count` fetches begin.
    async fn begin(&mut self, count: usize) -> Vec<u64> {
        let mut seconds = Vec::new();
        for _ in 0..count {
            seconds.push((self.began.recv().await.unwrap() - self.start).as_secs());
        }
        seconds
    }

    fn refresh(&self) {
        self.feed.wishes.send_replace(());
    }

    fn events(&mut self) -> Vec<FeedEvent> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }

    fn text(&self) -> Option<String> {
        self.feed.held.borrow().text.as_ref().map(|text| String::from_utf8(text.to_vec()).unwrap())
    }
}

fn keys(text: &'static str, max_age: Option<u64>) -> Outcome {
    Ok(Fetched { text: text.into(), set_aside: Vec::new(), max_age: max_age.map(Duration::from_secs) })
}

fn long() -> Outcome {
    Err(FetchError::Long)
}

fn changed(set_aside: &[KeyFault]) -> FeedEvent {
    FeedEvent::Changed { issuer: "sso".into(), set_aside: set_aside.to_vec() }
}

fn failed(message: &str) -> FeedEvent {
    FeedEvent::Failed { issuer: "sso".into(), message: format!("https://sso.example.com/: {message}") }
}

fn recovered() -> FeedEvent {
    FeedEvent::Recovered { issuer: "sso".into() }
}

#[tokio::test(start_paused = true)]
async fn a_set_is_fetched_again_when_it_has_aged() {
    let mut run = Run::new([keys("1", None), keys("1", Some(0)), keys("1", Some(600)), keys("1", Some(999_999)), keys("1", None)]);
    assert_eq!(run.begin(6).await, [0, 300, 360, 960, 4560, 4860]);
    assert_eq!(run.events(), [changed(&[])], "the same is no change");
}

#[tokio::test(start_paused = true)]
async fn a_rotation_is_taken_up() {
    let fault = KeyFault { index: 1, reason: "a private key".into() };
    let with_fault = Ok(Fetched { text: "2".into(), set_aside: vec![fault.clone()], max_age: None });
    let mut run = Run::new([keys("1", None), keys("2", None), with_fault, keys("3", None)]);
    for wanted in ["1", "2", "2", "3", "3"] {
        run.begin(1).await;
        assert_eq!(run.text().as_deref(), Some(wanted));
    }
    assert_eq!(run.events(), [changed(&[]), changed(&[]), changed(&[fault]), changed(&[])]);
}

#[tokio::test(start_paused = true)]
async fn failures_are_told_once_and_the_last_good_set_stays() {
    let slow = || Err(FetchError::Slow(Duration::from_secs(1)));
    let mut run = Run::new([keys("1", None), long(), long(), slow(), long(), keys("1", None), long()]);
    assert_eq!(run.begin(8).await, [0, 300, 305, 315, 335, 375, 675, 680]);
    assert_eq!(run.text().as_deref(), Some("1"));
    let too_long = || failed("answers with more than 524288 bytes");
    let wanted = [changed(&[]), too_long(), failed("no answer within 1000 ms"), too_long(), recovered(), too_long()];
    assert_eq!(run.events(), wanted);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_is_at_once_but_for_ten_seconds() {
    let mut run = Run::new((0..9).map(|_| keys("1", None)));
    assert_eq!(run.begin(1).await, [0]);
    for _ in 0..1000 {
        run.refresh();
    }
    assert_eq!(run.begin(1).await, [10]);
    tokio::time::sleep(Duration::from_secs(30)).await;
    run.refresh();
    assert_eq!(run.begin(1).await, [40]);
    assert_eq!(run.begin(1).await, [340], "and then by the schedule");
    run.refresh();
    run.refresh();
    assert_eq!(run.begin(2).await, [350, 650]);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_does_not_wait_out_a_long_pause_after_failures() {
    let mut run = Run::new((0..20).map(|_| long()));
    // 5, 10, 20, 40, 80 and 150 seconds apart.
    assert_eq!(run.begin(7).await, [0, 5, 15, 35, 75, 155, 305]);
    tokio::time::sleep(Duration::from_secs(20)).await;
    run.refresh();
    assert_eq!(run.begin(1).await, [325]);
}

#[tokio::test(start_paused = true)]
async fn a_set_that_cannot_be_kept_is_in_force_all_the_same() {
    let mut run = Run::new([keys("{}", None)]);
    // A file where the folder would be.
    let path = run.dir.path().to_owned();
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, "").unwrap();
    run.begin(2).await;
    assert_eq!(run.text().as_deref(), Some("{}"));
    let events = run.events();
    assert!(
        matches!(&events[..], [FeedEvent::Changed { .. }, FeedEvent::Failed { message, .. }] if message.contains("not kept")),
        "{events:?}"
    );
    std::fs::remove_file(&path).unwrap();
}
