use std::{
    future::Future,
    io::Write,
    os::unix::fs::symlink,
    pin::pin,
    task::{Context, Waker},
    time::Duration,
};

use super::*;

/// A directory `served` in an empty one.
struct Served {
    outer: tempfile::TempDir,
    files: Files,
}

impl Served {
    /// Made ready by `prepare`, and read once. `also`: files that objects would need.
    fn new(prepare: impl FnOnce(&Path), also: &[&str]) -> Self {
        let outer = tempfile::tempdir().unwrap();
        prepare(outer.path());
        let files = Files::new(&outer.path().join("served"), Watch::new().unwrap());
        let mut served = Self { outer, files };
        served.read(also);
        served
    }

    fn path(&self, name: &str) -> PathBuf {
        self.outer.path().join(name)
    }

    /// `name=text` of each file, `name!` of one that cannot be read.
    fn read(&mut self, also: &[&str]) -> Vec<String> {
        loop {
            self.files.begin();
            let mut paths: Vec<PathBuf> = self.files.list().map(|scan| scan.files.into_keys().collect()).unwrap_or_default();
            paths.extend(also.iter().map(|name| self.path(name)));
            let mut told = Vec::new();
            for path in paths {
                let name = path.strip_prefix(self.outer.path()).unwrap().display().to_string();
                told.push(match self.files.read(&path) {
                    Ok(text) => format!("{name}={}", String::from_utf8_lossy(&text)),
                    Err(_) => format!("{name}!"),
                });
            }
            if self.files.end() {
                return told;
            }
        }
    }

    /// What is read once the watch has noticed.
    async fn edited(&mut self, also: &[&str]) -> Vec<String> {
        let noticed = tokio::time::timeout(Duration::from_secs(20), self.files.settled()).await;
        noticed.expect("the edit is not noticed").unwrap();
        self.read(also)
    }

    fn is_edited(&mut self) -> bool {
        self.files.watch.drain();
        self.files.watch.has_edit()
    }
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn one_file(outer: &Path) {
    write(&outer.join("served/a.yaml"), "1");
}

/// A directory before, what is done to it, what is read after.
struct Case {
    what: &'static str,
    before: fn(&Path),
    edit: fn(&Path),
    after: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        what: "written in place",
        before: one_file,
        edit: |outer| write(&outer.join("served/a.yaml"), "2"),
        after: &["served/a.yaml=2"],
    },
    Case {
        what: "as long as before",
        before: one_file,
        edit: |outer| {
            write(&outer.join("served/a.yaml"), "2");
            write(&outer.join("served/a.yaml"), "3");
        },
        after: &["served/a.yaml=3"],
    },
    Case {
        what: "renamed into place, as editors do",
        before: one_file,
        edit: |outer| {
            write(&outer.join("served/.a.yaml.swp"), "2");
            fs::rename(outer.join("served/.a.yaml.swp"), outer.join("served/a.yaml")).unwrap();
        },
        after: &["served/a.yaml=2"],
    },
    Case {
        what: "renamed into place from elsewhere, older than what it replaces",
        before: |outer| {
            write(&outer.join("older"), "0");
            one_file(outer);
        },
        edit: |outer| fs::rename(outer.join("older"), outer.join("served/a.yaml")).unwrap(),
        after: &["served/a.yaml=0"],
    },
    Case { what: "removed", before: one_file, edit: |outer| fs::remove_file(outer.join("served/a.yaml")).unwrap(), after: &[] },
    Case {
        what: "linked",
        before: one_file,
        edit: |outer| fs::hard_link(outer.join("served/a.yaml"), outer.join("served/b.yaml")).unwrap(),
        after: &["served/a.yaml=1", "served/b.yaml=1"],
    },
    Case {
        what: "a folder made, with a folder in it",
        before: one_file,
        edit: |outer| write(&outer.join("served/x/y/b.yaml"), "2"),
        after: &["served/a.yaml=1", "served/x/y/b.yaml=2"],
    },
    Case {
        what: "a folder renamed",
        before: |outer| write(&outer.join("served/x/a.yaml"), "1"),
        edit: |outer| fs::rename(outer.join("served/x"), outer.join("served/y")).unwrap(),
        after: &["served/y/a.yaml=1"],
    },
    Case {
        what: "a folder removed and made again",
        before: |outer| write(&outer.join("served/x/a.yaml"), "1"),
        edit: |outer| {
            fs::remove_dir_all(outer.join("served/x")).unwrap();
            write(&outer.join("served/x/b.yaml"), "2");
        },
        after: &["served/x/b.yaml=2"],
    },
    Case {
        what: "the directory replaced",
        before: |outer| {
            one_file(outer);
            write(&outer.join("next/a.yaml"), "2");
        },
        edit: |outer| {
            fs::rename(outer.join("served"), outer.join("old")).unwrap();
            fs::rename(outer.join("next"), outer.join("served")).unwrap();
        },
        after: &["served/a.yaml=2"],
    },
    Case {
        what: "the directory a link that is swapped, as git-sync does",
        before: |outer| {
            write(&outer.join("1/a.yaml"), "1");
            write(&outer.join("2/a.yaml"), "2");
            symlink("1", outer.join("served")).unwrap();
        },
        edit: |outer| {
            symlink("2", outer.join("next")).unwrap();
            fs::rename(outer.join("next"), outer.join("served")).unwrap();
        },
        after: &["served/a.yaml=2"],
    },
    Case {
        what: "a mounted ConfigMap swapped",
        before: |outer| {
            write(&outer.join("served/..1/a.yaml"), "1");
            write(&outer.join("served/..2/a.yaml"), "2");
            symlink("..1", outer.join("served/..data")).unwrap();
            symlink("..data/a.yaml", outer.join("served/a.yaml")).unwrap();
        },
        edit: |outer| {
            symlink("..2", outer.join("served/..data_tmp")).unwrap();
            fs::rename(outer.join("served/..data_tmp"), outer.join("served/..data")).unwrap();
            fs::remove_dir_all(outer.join("served/..1")).unwrap();
        },
        after: &["served/a.yaml=2"],
    },
    Case {
        what: "written behind a link",
        before: |outer| {
            write(&outer.join("elsewhere/a.yaml"), "1");
            fs::create_dir(outer.join("served")).unwrap();
            symlink("../elsewhere/a.yaml", outer.join("served/a.yaml")).unwrap();
        },
        edit: |outer| write(&outer.join("elsewhere/a.yaml"), "2"),
        after: &["served/a.yaml=2"],
    },
    Case {
        what: "written in a folder behind a link",
        before: |outer| {
            write(&outer.join("elsewhere/x/a.yaml"), "1");
            fs::create_dir(outer.join("served")).unwrap();
            symlink("../elsewhere", outer.join("served/link")).unwrap();
        },
        edit: |outer| write(&outer.join("elsewhere/x/a.yaml"), "2"),
        after: &["served/link/x/a.yaml=2"],
    },
    Case {
        what: "a dangling link that gets its target",
        before: |outer| {
            fs::create_dir(outer.join("served")).unwrap();
            symlink("../not/yet/a.yaml", outer.join("served/a.yaml")).unwrap();
        },
        edit: |outer| write(&outer.join("not/yet/a.yaml"), "2"),
        after: &["served/a.yaml=2"],
    },
];

#[tokio::test]
async fn every_edit_is_noticed() {
    for case in CASES {
        let mut served = Served::new(case.before, &[]);
        assert!(!served.is_edited(), "{}", case.what);
        (case.edit)(served.outer.path());
        // It may take more than one look: files that come one after the other, some while a look is taken.
        let mut told = served.edited(&[]).await;
        while told != case.after {
            told = served.edited(&[]).await;
        }
        // And what is written then, wherever that leads now.
        write(&served.path("served/later.yaml"), "later");
        let later: Vec<String> = case.after.iter().map(|line| (*line).to_owned()).chain(["served/later.yaml=later".into()]).collect();
        let told: BTreeMap<String, ()> = served.edited(&[]).await.into_iter().map(|line| (line, ())).collect();
        assert_eq!(told, later.into_iter().map(|line| (line, ())).collect(), "{}", case.what);
    }
}

#[tokio::test]
async fn files_that_objects_need_are_watched_wherever_they_are() {
    let key = "far/away/jwks.json";
    let mut served = Served::new(one_file, &[key]);
    write(&served.path(key), "1");
    let wanted = |text: &str| vec!["served/a.yaml=1".to_owned(), format!("{key}={text}")];
    let mut told = served.edited(&[key]).await;
    while told != wanted("1") {
        told = served.edited(&[key]).await; // the folders came first
    }
    write(&served.path(key), "2");
    assert_eq!(served.edited(&[key]).await, wanted("2"));
    // As a mounted Secret is swapped, folder and all.
    fs::rename(served.path("far/away"), served.path("far/gone")).unwrap();
    write(&served.path(key), "3");
    let mut told = served.edited(&[key]).await;
    while told != wanted("3") {
        told = served.edited(&[key]).await;
    }
    // Its neighbours are nobody's business, and neither is what was needed before.
    write(&served.path("far/away/neighbour.json"), "x");
    assert!(!served.is_edited());
    served.read(&[]);
    write(&served.path(key), "4");
    assert!(!served.is_edited());
}

#[tokio::test]
async fn what_is_never_read_wakes_nobody() {
    let mut served = Served::new(
        |outer| {
            one_file(outer);
            write(&outer.join("served/.ringfence/access.log"), "");
        },
        &[],
    );
    write(&served.path("served/.ringfence/access.log"), "a line");
    write(&served.path("served/.hidden.yaml"), "x");
    write(&served.path("served/note.txt"), "x");
    write(&served.path("beside.yaml"), "x");
    let ready = pin!(served.files.settled()).poll(&mut Context::from_waker(Waker::noop())).is_ready();
    assert!(!ready);
    assert!(!served.is_edited());
}

#[tokio::test]
async fn a_file_that_is_being_written_keeps_its_old_text_until_it_is_closed() {
    let mut served = Served::new(one_file, &[]);
    let (mut old, mut new) = (
        fs::File::create(served.path("served/a.yaml")).unwrap(), // cut to nothing
        fs::File::create(served.path("served/new.yaml")).unwrap(),
    );
    old.write_all(b"ha").unwrap();
    new.write_all(b"ha").unwrap();
    assert!(!served.is_edited());
    assert_eq!(served.read(&[]), ["served/a.yaml=1"], "a new file is not there before it is whole");
    // An editor that takes the old file away first.
    fs::remove_file(served.path("served/a.yaml")).unwrap();
    let mut again = fs::File::create(served.path("served/a.yaml")).unwrap();
    again.write_all(b"ha").unwrap();
    assert_eq!(served.read(&[]), ["served/a.yaml=1"], "nor is an old one gone while it is replaced");
    for mut file in [again, new] {
        file.write_all(b"lf").unwrap();
    }
    assert_eq!(served.edited(&[]).await, ["served/a.yaml=half", "served/new.yaml=half"]);
}

#[test]
fn what_is_opened_for_writing_while_it_is_read_counts_as_not_read() {
    let mut served = Served::new(one_file, &[]);
    write(&served.path("served/a.yaml"), "2");
    write(&served.path("served/new.yaml"), "2");
    served.files.begin();
    served.files.list().unwrap();
    let paths = [served.path("served/a.yaml"), served.path("served/new.yaml")];
    let mut writers: Vec<fs::File> = paths.iter().map(|path| fs::File::create(path).unwrap()).collect();
    writers.iter_mut().for_each(|file| file.write_all(b"ha").unwrap());
    for path in &paths {
        assert_eq!(&*served.files.read(path).unwrap(), b"ha");
    }
    assert!(!served.files.end(), "torn");
    assert_eq!(served.read(&[]), ["served/a.yaml=1"]);
    drop(writers);
    assert_eq!(served.read(&[]), ["served/a.yaml=ha", "served/new.yaml=ha"]);
}

#[tokio::test]
async fn an_edit_outlives_the_wait_for_it() {
    let mut served = Served::new(one_file, &[]);
    write(&served.path("served/a.yaml"), "2");
    // Something else happens first, again and again.
    for _ in 0..10 {
        let ready = pin!(served.files.settled()).poll(&mut Context::from_waker(Waker::noop())).is_ready();
        assert!(!ready, "the edit may go on");
    }
    assert_eq!(served.edited(&[]).await, ["served/a.yaml=2"]);
}

#[tokio::test]
async fn lost_events_cost_a_look_at_everything() {
    let mut served = Served::new(one_file, &[]);
    // Never closed, as far as we heard.
    let _writer = fs::File::create(served.path("served/a.yaml")).unwrap();
    assert!(!served.is_edited());
    served.files.watch.lose();
    assert_eq!(served.edited(&[]).await, ["served/a.yaml="]);
    assert!(!served.is_edited());
}
