//! Every input of the fuzzers' corpus, run through the targets as a plain test: what was found once stays mended.
//!
//! `fuzz/run` looks for more.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

mod seeds;
#[path = "../../fuzz/src/targets.rs"]
mod targets;

use targets::TARGETS;

fn corpus() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn every_input_of_the_corpus_does_what_its_target_asserts() {
    let mut bytes = 0;
    for (target, run) in TARGETS {
        let directory = corpus().join(target);
        let inputs = names(&directory);
        assert!(inputs.len() >= 2, "{target} has no corpus");
        for name in inputs {
            let input = fs::read(directory.join(&name)).unwrap();
            bytes += input.len();
            println!("{target}/{name}");
            let began = Instant::now();
            run(&input);
            assert!(
                began.elapsed() < Duration::from_secs(5),
                "{target}/{name} takes too long"
            );
        }
    }
    assert!(
        bytes < 1_000_000,
        "the corpus has {bytes} bytes; keep what reaches code that nothing else does"
    );
}

#[test]
fn every_directory_of_the_corpus_is_a_target() {
    let targets: Vec<String> = TARGETS.map(|(name, _)| name.to_owned()).into();
    assert_eq!(names(&corpus()), targets);
}
