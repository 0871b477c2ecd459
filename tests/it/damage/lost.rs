//! The service's database lost beside its models and datasets, under the real binary.

use std::path::Path;
use std::process::{Command, Output};

use chrono::DateTime;
use lookoutd::service::store::{NewModel, Store};

use crate::rig::directory;
use crate::service::plant::model;

fn lookoutd(arguments: &[&str], data_dir: &Path) -> Output {
    // What starts although it must not is ended.
    Command::new("timeout")
        .args(["60", env!("CARGO_BIN_EXE_lookoutd")])
        .args(arguments)
        .arg("--data-dir")
        .arg(data_dir)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .output()
        .unwrap()
}

/// Names and bytes of everything below a directory.
fn everything(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            let below = everything(&path).into_iter();
            found.extend(below.map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else {
            found.push((name, std::fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_lost_state_database_is_refused_with_73_and_its_models_are_taken_up_again() {
    let scratch = directory();
    let data_dir = scratch.path().join("data");
    let state = data_dir.join("service");
    std::fs::create_dir_all(&data_dir).unwrap();
    let store = Store::open(&state).unwrap();
    let new = NewModel::of("pump-model", model(), "us-east-1", "000000000000");
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    store.register_model(new, now).await.unwrap();
    drop(store);
    std::fs::create_dir_all(state.join("datasets/job")).unwrap();
    std::fs::write(state.join("datasets/job/rows"), "rows").unwrap();
    std::fs::remove_file(state.join("state.db")).unwrap();
    let before = everything(&state);

    let listen = ["--listen", "127.0.0.1:0", "--s3-listen", "127.0.0.1:0"];
    let serve = [&["serve", "--admin-listen", ""][..], &listen].concat();
    let run = [
        "run",
        "--once",
        "--set",
        "service.listen=127.0.0.1:0",
        "--set",
        "service.s3_listen=127.0.0.1:0",
        "--set",
        "admin.listen=",
    ];
    let file = |name: &str| state.join(name).display().to_string();
    let model_file = before.iter().find(|(name, _)| name.ends_with(".model"));
    let model_file = file(&model_file.unwrap().0);
    let register = ["model", "register", &model_file, "--name", "pump-model"];
    for arguments in [&serve[..], &run, &register] {
        let output = lookoutd(arguments, &data_dir);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(73), "{arguments:?}: {said}");
        for part in [
            &file("state.db"),
            "1 model files",
            "1 ingested datasets",
            "backup",
            "model register",
        ] {
            assert!(
                said.contains(part),
                "{arguments:?}: {part} is not in {said}"
            );
        }
        assert_eq!(everything(&state), before, "{arguments:?}");
    }

    // The documented way on.
    let lost = data_dir.join("lost");
    std::fs::create_dir(&lost).unwrap();
    for folder in ["models", "datasets"] {
        std::fs::rename(state.join(folder), lost.join(folder)).unwrap();
    }
    let model_file = model_file.replace("service/models", "lost/models");
    let register = ["model", "register", &model_file, "--name", "pump-model"];
    let output = lookoutd(&register, &data_dir);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(
        output.status.success() && said.contains("version 1"),
        "{said}"
    );
    let bytes = std::fs::read(&model_file).unwrap();
    let taken = everything(&state.join("models"));
    assert_eq!(taken.len(), 1);
    assert!(taken[0].1 == bytes, "other bytes than the file's");
    let again = lookoutd(&register, &data_dir);
    assert!(String::from_utf8_lossy(&again.stdout).contains("version 2"));

    // A file that is no whole model is not taken up.
    let half = data_dir.join("half.model");
    std::fs::write(&half, &bytes[..bytes.len() / 2]).unwrap();
    let refused = lookoutd(
        &[
            "model",
            "register",
            half.to_str().unwrap(),
            "--name",
            "half",
        ],
        &data_dir,
    );
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("half.model"),
        "{said}"
    );
    assert!(said.contains("cut off"), "{said}");
}
