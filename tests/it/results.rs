//! What a proof found, for the table in RELIABILITY.md.

use std::io::Write;
use std::str::FromStr;

/// How many cases a proof looks at: the number in the environment variable `name`, else `short`.
pub fn cases(name: &str, short: usize) -> usize {
    number(name).unwrap_or(short)
}

/// `SEED` of the environment, else a new one.
pub fn seed() -> u64 {
    number("SEED").unwrap_or_else(|| fastrand::u64(..))
}

fn number<N: FromStr>(name: &str) -> Option<N> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().ok().unwrap_or_else(|| panic!("{name}={text} is no number")))
}

/// Call it once the proof holds: prints the result, and appends it to the file that `CALLBOARD_RESULTS` names, which
/// `scripts/prove` turns into the table. A line is proof, cases, seed (`-` where chance plays no part) and result,
/// with tabs between them.
#[expect(clippy::print_stdout, reason = "it is a test's output")]
pub fn record(proof: &str, cases: usize, seed: Option<u64>, result: &str) {
    let seed = seed.map_or_else(|| "-".to_owned(), |seed| seed.to_string());
    let line = format!("{proof}\t{cases}\t{seed}\t{result}");
    println!("{line}");
    if let Some(path) = std::env::var_os("CALLBOARD_RESULTS") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "{line}").unwrap();
    }
}
