//! `kill -9` at moments that nobody chose.

use std::time::{Duration, Instant};

use callboard::model::RunId;

use super::{Books, Place, finish, happen};
use crate::results;

/// `KILLS=300` for more of them, `SEED=` for the same moments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_it_loses_nothing_and_repeats_only_what_it_counts() {
    let (kills, seed) = (results::cases("KILLS", 25), results::seed());
    println!("SEED={seed} repeats the moments of the kills");
    let mut random = fastrand::Rng::with_seed(seed);
    let place = Place::new().await;
    let mut process = place.start();
    place.ready(&mut process).await;
    let mut runs: Vec<RunId> = Vec::new();
    for kill in 0..kills {
        // Things happen while it lives, and go on happening while it is dead. It needs about a quarter of a second to
        // begin, so some lives end before they have.
        let life = Instant::now() + Duration::from_micros(random.u64(1_000..400_000));
        while Instant::now() < life {
            happen(&place.world, &mut runs, &mut random);
            tokio::time::sleep(Duration::from_millis(random.u64(0..20))).await;
        }
        process.kill();
        happen(&place.world, &mut runs, &mut random);
        process = place.start();
        if kill % 5 == 4 {
            place.ready(&mut process).await;
        }
    }
    place.ready(&mut process).await;
    finish(&place.world, &runs);
    place.drained(&runs, 1, &mut process).await;
    place.stop(process).await;
    let books = Books::closed(&place, &format!("SEED={seed}")).await;
    results::record("`kill -9` at random moments", kills, Some(seed), &books.to_string());
}
