//! `kill -9` at every write, sync and send of a small scenario, one after the other, and an error of the disk at every
//! sync.
//!
//! `nth.c` is preloaded into the program and counts its calls over all threads; so call 1, 2, 3, … of the scenario is
//! each hit, whichever thread makes it. That it sees every call is not taken on trust: a run under `strace` compares
//! its log with what the kernel was asked for. That each number was reached is read off its log: a run either died at
//! its number, or the log ends before it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use callboard::demo::dataworks::RunSpec;
use callboard::model::RunId;
use futures_util::StreamExt;

use super::{Books, PROJECT, Place, Process, finish};
use crate::results;

/// Runs side by side.
const TOGETHER: usize = 4;

/// What `nth.c` does when it has counted that far.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Deed {
    Kill,
    /// Half of the call is made, then comes the kill.
    Half,
    FailedSync,
}

/// A call as `nth.c` wrote it down.
#[derive(Debug, Clone)]
struct Call {
    /// 0 where it was not counted.
    number: usize,
    name: String,
    target: String,
}

impl Call {
    fn kind(&self) -> String {
        format!("{} {}", self.name, self.target)
    }

    fn is_sync(&self) -> bool {
        matches!(self.name.as_str(), "fsync" | "fdatasync")
    }
}

/// The compiled `nth.c`.
struct Library {
    folder: tempfile::TempDir,
}

impl Library {
    fn build() -> Library {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/process/nth.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-Wall", "-Werror", "-O1", "-shared", "-fPIC", "-o"]).arg(folder.path().join("nth.so"));
        let output = compiler.arg(source).arg("-ldl").output().expect("this test needs a C compiler named cc");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Library { folder }
    }

    /// The environment that loads it.
    fn environment(&self, place: &Place, nth: usize, deed: Deed) -> [(&'static str, OsString); 6] {
        let deed = match deed {
            Deed::Kill => "kill",
            Deed::Half => "half",
            Deed::FailedSync => "eio",
        };
        [
            ("LD_PRELOAD", self.folder.path().join("nth.so").into()),
            ("NTH", nth.to_string().into()),
            ("NTH_DEED", deed.into()),
            ("NTH_LOG", calls_of(place).into()),
            ("NTH_FOLDER", place.home.clone().into()),
            ("NTH_PORT", place.sink.port().to_string().into()),
        ]
    }
}

fn calls_of(place: &Place) -> PathBuf {
    place.folder.path().join("calls")
}

fn calls(place: &Place) -> Vec<Call> {
    let text = std::fs::read_to_string(calls_of(place)).unwrap_or_default();
    let call = |line: &str| {
        let [number, name, target] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line:?}") };
        Call { number: number.parse().unwrap(), name: name.to_owned(), target: target.to_owned() }
    };
    text.lines().map(call).collect()
}

/// The scenario: the store is made, the workspace's baseline set, a run begins and goes on step by step to its end, the
/// process is told to stop. Returns once that is done, or the process has ended before.
async fn play(place: &Place, process: &mut Process, runs: &mut Vec<RunId>) {
    // The second list begins when the first is on record.
    while place.world.total_calls() < 2 {
        if process.ended().is_some() {
            return;
        }
        tokio::time::sleep(super::LOOK).await;
    }
    runs.push(place.world.add_run(PROJECT, RunSpec::of("release", &[("BUILD_PACKAGE", "Build")])));
    for told in 1.. {
        while place.sink.accepted().len() < told {
            if process.ended().is_some() {
                return;
            }
            tokio::time::sleep(super::LOOK).await;
        }
        if place.told("run.finished") > 0 {
            break;
        }
        place.world.advance(PROJECT, &runs[0]).unwrap();
    }
    process.terminate();
    process.exit().await;
}

/// One more start without any deed, to the end. What was never begun happens now.
async fn recover(place: &Place, runs: &mut Vec<RunId>) {
    let mut process = place.start();
    place.ready(&mut process).await;
    if runs.is_empty() {
        runs.push(place.world.add_run(PROJECT, RunSpec::of("release", &[("BUILD_PACKAGE", "Build")])));
    }
    finish(&place.world, runs);
    place.drained(runs, 1, &mut process).await;
    place.stop(process).await;
}

struct Played {
    books: Books,
    calls: Vec<Call>,
    /// The call at which the deed was done.
    hit: Option<Call>,
}

async fn played(library: &Library, nth: usize, deed: Deed) -> Played {
    let told = format!("{deed:?} at call {nth}");
    let place = Place::new().await;
    let mut command = place.command(&["run"]);
    command.envs(library.environment(&place, nth, deed));
    let mut process = place.begin(command);
    let mut runs = Vec::new();
    play(&place, &mut process, &mut runs).await;
    let status = process.exit().await;
    let calls = calls(&place);
    let hit = calls.iter().find(|call| nth > 0 && call.number == nth).cloned();
    match deed {
        _ if hit.is_none() => assert_eq!(status.code(), Some(0), "{told}: {}", place.log()),
        Deed::Kill | Deed::Half => {
            assert_eq!(status.code(), None, "{told}: it outlived the kill");
            assert_eq!(calls.iter().map(|call| call.number).max(), Some(nth), "{told}: calls came after the kill");
        }
        Deed::FailedSync => failed_plainly(&told, status.code(), &place.log(), &calls, nth),
    }
    recover(&place, &mut runs).await;
    Played { books: Books::closed(&place, &told).await, calls, hit }
}

/// Once a sync failed, nobody knows what the disk holds.
fn failed_plainly(told: &str, status: Option<i32>, log: &str, calls: &[Call], nth: usize) {
    // While it closes the file everything is recorded already; the next start repeats what closing left undone.
    let failed = calls.iter().position(|call| call.number == nth).unwrap();
    let closing = calls[..failed].iter().any(|call| call.target == "sink") && log.contains("callboard has stopped");
    assert!(status == Some(1) || closing, "{told}: exit status {status:?}\n{log}");
    assert!(!log.contains("panicked"), "{told}: {log}");
    let said = ["refused to sync; see to the disk", "can't be opened"].iter().any(|words| log.contains(words));
    assert!(said || closing, "{told}: no plain message\n{log}");
    // A sync that is repeated says "done" of what the failed one has lost. What was written anew is another matter.
    let file = &calls[failed].target;
    let next = calls[failed + 1..].iter().find(|call| call.target == *file && call.name != "unlink");
    assert!(next.is_none_or(|call| !call.is_sync()), "{told}: {file} was synced again after that had failed");
}

/// Plays it with the deed at each of the numbers, and checks that each was reached.
async fn play_all(library: &Library, numbers: Vec<usize>, deed: Deed) -> (Books, BTreeMap<String, usize>) {
    let (mut books, mut kinds) = (Books::default(), BTreeMap::new());
    let mut all = futures_util::stream::iter(numbers)
        .map(|number| async move { (number, played(library, number, deed).await) })
        .buffer_unordered(TOGETHER);
    while let Some((number, played)) = all.next().await {
        books.add(&played.books);
        let kind = match &played.hit {
            Some(call) => call.kind(),
            // Which writes share a commit differs a little from one time to the next.
            None => {
                let made = played.calls.iter().map(|call| call.number).max().unwrap_or(0);
                assert!(made < number, "call {number} was made and not hit");
                "none: it had ended before".to_owned()
            }
        };
        *kinds.entry(kind).or_insert(0) += 1;
    }
    (books, kinds)
}

/// `wanted` of 1 to `last`, evenly; all of them and some more where `wanted` is more, because the last time need not
/// have been the longest.
fn spread(last: usize, wanted: usize) -> Vec<usize> {
    match wanted {
        _ if wanted >= last => (1..=last + 10).collect(),
        _ => (0..wanted).map(|n| 1 + n * (last - 1) / (wanted - 1).max(1)).collect(),
    }
}

fn shown(kinds: &BTreeMap<String, usize>) -> String {
    kinds.iter().map(|(kind, count)| format!("  {count:4} × {kind}\n")).collect()
}

/// `CALLS=1000` kills at every call, and in the middle of every call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_each_write_sync_and_send_it_loses_nothing() {
    let library = Library::build();
    let counted = played(&library, 0, Deed::Kill).await;
    assert_eq!((counted.books.extra, counted.books.unknown), (0, 0), "undisturbed, nothing is sent twice");
    let last = counted.calls.len();
    let wanted = results::cases("CALLS", 24);
    let (mut books, mut kinds) = (Books::default(), BTreeMap::new());
    let mut cases = 0;
    for (deed, share) in [(Deed::Kill, wanted.div_ceil(2)), (Deed::Half, wanted / 2)] {
        let mut numbers = spread(last, if wanted >= last { wanted } else { share });
        if wanted < last {
            // The sends are few and matter most.
            let sends = counted.calls.iter().filter(|call| call.target == "sink").map(|call| call.number);
            numbers.extend(sends);
            numbers.sort_unstable();
            numbers.dedup();
        }
        cases += numbers.len();
        let (more, hit) = play_all(&library, numbers, deed).await;
        books.add(&more);
        for (kind, count) in hit {
            *kinds.entry(kind).or_insert(0) += count;
        }
    }
    println!("of {last} calls, killed at:\n{}", shown(&kinds));
    let of = if wanted >= last { "each" } else { "some" };
    let proof = "`kill -9` at each write, sync and send, and in the middle of it";
    results::record(proof, cases, None, &format!("{of} of {last} calls: {books}"));
}

/// `SYNCS=1000` for each of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_fails_ends_the_process_and_loses_nothing() {
    let library = Library::build();
    let counted = played(&library, 0, Deed::FailedSync).await;
    let last = counted.calls.iter().filter(|call| call.is_sync()).count();
    let wanted = results::cases("SYNCS", 8);
    let numbers = spread(last, wanted);
    let cases = numbers.len();
    let (books, kinds) = play_all(&library, numbers, Deed::FailedSync).await;
    println!("of {last} syncs, these failed:\n{}", shown(&kinds));
    results::record("EIO at each sync", cases, None, &format!("of {last} syncs: {books}"));
}

/// The kernel's view of the same scenario.
#[tokio::test]
async fn no_call_escapes_the_count() {
    let library = Library::build();
    let place = Place::new().await;
    let trace = place.folder.path().join("trace");
    let made = "write,pwrite64,writev,pwritev,pwritev2,sendto,sendmsg,sendmmsg,sendfile,copy_file_range,splice,\
                fsync,fdatasync,sync_file_range,syncfs,msync,ftruncate,unlink,unlinkat,rename,renameat,renameat2";
    let mut strace = Command::new("strace");
    // Tracing from beside (-D), so that the process started here is callboard itself.
    strace.args(["-D", "-f", "-yy", "--seccomp-bpf", "-e", "signal=none", "-e", &format!("trace={made}"), "-o"]);
    strace.arg(&trace);
    for (name, value) in library.environment(&place, 0, Deed::Kill) {
        strace.arg("-E").arg(format!("{name}={}", value.display()));
    }
    let callboard = place.command(&["run"]);
    strace.arg("--").arg(callboard.get_program()).args(callboard.get_args());
    strace.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let mut process = place.begin(strace);
    let mut runs = Vec::new();
    play(&place, &mut process, &mut runs).await;
    assert_eq!(process.exit().await.code(), Some(0), "this test needs strace and the right to use it: {}", place.log());
    drop(process);

    let counted = calls(&place);
    let (folder, port) = (place.home.to_str().unwrap().to_owned(), format!("->127.0.0.1:{}]", place.sink.port()));
    let text = std::fs::read_to_string(&trace).unwrap();
    // A call that was interrupted by another thread's stands in two lines; the first has what it is about.
    let about = |line: &&str| {
        let target = line.split_once('(').map_or("", |(_, rest)| rest.split(", ").next().unwrap_or_default());
        !line.contains("resumed>") && (target.contains(&folder) || target.contains(&port))
    };
    let seen = text.lines().filter(about).count();
    assert_eq!(seen, counted.len(), "the kernel was asked for other calls than were counted:\n{text}");
    assert!(counted.iter().any(|call| call.target == "sink") && counted.iter().any(Call::is_sync), "{counted:?}");
}
