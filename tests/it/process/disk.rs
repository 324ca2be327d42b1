//! A disk that is full from time to time.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use callboard::model::RunId;

use super::{Books, Place, finish, happen};
use crate::results;

/// A small disk in memory, mounted where only a process of this test sees it: nothing has to be cleaned up, and the
/// right to mount comes from a user namespace where the tests don't run as root.
struct Disk {
    holder: Child,
}

impl Disk {
    /// More than the store's log takes before it is folded into the file, so that only the filler fills it.
    const SIZE: &str = "size=16m";

    fn mount() -> Disk {
        let script = "mount -t tmpfs -o \"$0\" callboard /mnt && echo mounted && exec sleep infinity";
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", script, Disk::SIZE]);
        let mut holder = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("this test needs unshare");
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(
            said, "mounted\n",
            "this test mounts a disk in memory and may not: run it as root, or allow user namespaces"
        );
        Disk { holder }
    }

    /// The disk as it is seen from outside.
    fn path(&self) -> PathBuf {
        ["/proc", &self.holder.id().to_string(), "root", "mnt"].iter().collect()
    }

    /// A place whose process sees the disk and keeps its store there.
    async fn place(&self) -> Place {
        let mut place = Place::of(tempfile::tempdir().unwrap(), "/mnt".into(), &["hook"]).await;
        let holder = self.holder.id().to_string();
        let words = ["nsenter", "--target", &holder, "--user", "--mount", "--preserve-credentials", "--"];
        place.prefix = words.map(str::to_owned).to_vec();
        place
    }

    /// Takes the store off the disk once no process holds it, so that it can be looked into.
    fn unload(&self, place: &mut Place) {
        place.home = place.folder.path().to_owned();
        for name in super::files(&self.path()) {
            std::fs::copy(self.path().join(&name), place.home.join(&name)).unwrap();
        }
    }

    fn fill(&self) {
        let mut filler = File::options().create(true).append(true).open(self.path().join("filler")).unwrap();
        for size in [1 << 16, 1 << 10, 1] {
            while filler.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// `FULLS=200` for more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_again_and_again_costs_no_message_and_repeats_none() {
    let (cycles, seed) = (results::cases("FULLS", 12), results::seed());
    println!("SEED={seed} repeats what happens");
    let mut random = fastrand::Rng::with_seed(seed);
    let disk = Disk::mount();
    let mut place = disk.place().await;
    let mut process = place.start();
    place.ready(&mut process).await;
    let mut runs: Vec<RunId> = Vec::new();
    for _ in 0..cycles {
        for _ in 0..random.usize(0..8) {
            happen(&place.world, &mut runs, &mut random);
        }
        disk.fill();
        // Writes are refused once the log has to grow.
        let full = async || {
            happen(&place.world, &mut runs, &mut random);
            let (status, body) = place.page("/readyz").await.unwrap_or_default();
            status == 503 && body.contains("the store's disk is full")
        };
        place.until("the page says that the disk is full", &mut process, full).await;
        assert!(place.answers("/healthz", 200).await, "a full disk is no reason to start it anew");
        for _ in 0..random.usize(0..8) {
            happen(&place.world, &mut runs, &mut random);
        }
        disk.free();
        // By itself.
        place.ready(&mut process).await;
    }
    finish(&place.world, &runs);
    place.drained(&runs, 1, &mut process).await;
    place.stop(process).await;
    disk.unload(&mut place);
    let books = Books::closed(&place, &format!("SEED={seed}")).await;
    assert_eq!((books.extra, books.unknown), (0, 0), "SEED={seed}");
    results::record("the disk full and free again", cycles, Some(seed), &books.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn started_on_a_full_disk_it_says_so_and_leaves_the_store_as_it_is() {
    let disk = Disk::mount();
    let mut place = disk.place().await;
    // No store yet: it can't be made.
    disk.fill();
    let (status, said) = place.refused().await;
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("disk is full") || said.contains("No space left"), "{said}");
    disk.free();

    // What a killed process was sending can't be turned into "unknown": nothing may be sent before that.
    let mut process = place.start();
    place.ready(&mut process).await;
    place.sink.answer("/hooks/hook", [crate::sink::Answer::Hang]);
    let mut random = fastrand::Rng::with_seed(1);
    let mut runs = Vec::new();
    happen(&place.world, &mut runs, &mut random);
    place.sink.until_seen(1).await;
    process.kill();
    disk.fill();
    let (status, said) = place.refused().await;
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("disk is full"), "{said}");
    assert_eq!(place.sink.seen().len(), 1, "it was sent again without a record");
    disk.free();
    let mut process = place.start();
    place.ready(&mut process).await;
    finish(&place.world, &runs);
    place.drained(&runs, 1, &mut process).await;
    place.stop(process).await;
    disk.unload(&mut place);
    let books = Books::closed(&place, "after a start on a full disk").await;
    assert_eq!((books.extra, books.unknown), (1, 1));
}
