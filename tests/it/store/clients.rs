//! Real clients at their everyday work: each copies a tree into the store and back, and the trees are equal.

use std::process::Command;

use lookoutd::store::Options;
use lookoutd::store::export::Contents;

use super::serve;
use crate::s3_server::KEY;

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_comes_back_equal_through_every_client() {
    let Some(python) = crate::skipped::python() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("s3");
    let served = serve(&root, Options::default()).await;
    let url = served.url.clone();
    let run = tokio::task::spawn_blocking(move || {
        Command::new(python)
            .args(["tests/store/clients.py", &url, KEY.0, KEY.1])
            .output()
            .unwrap()
    });
    let output = run.await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    drop(served);
    let report = Contents::open(&root).unwrap().verify().unwrap();
    assert_eq!(report.damaged, Vec::<String>::new());
}
