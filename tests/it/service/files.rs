//! Models and datasets on a disk that loses its power: at every durable step, with the names that were not synced kept or
//! lost, what the state calls finished is whole, what it does not can be done again, and nothing is left that nobody knows.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use lookoutd::disk::{Disk, LocalDisk};
use lookoutd::service::files::Files;
use lookoutd::service::history::PartWriter;
use lookoutd::service::operations::{self, Identity};
use lookoutd::service::store::ingestion::Ingested;
use lookoutd::service::store::{NewModel, Store};
use serde_json::{Value, json};

use super::plant::{START, at, model};

/// A disk that stops at an operation.
struct CutDisk(Mutex<State>);

#[derive(Default)]
struct State {
    /// Operations until the power fails.
    left: usize,
    synced: HashSet<PathBuf>,
    /// Renames that were not synced.
    moved: Vec<(PathBuf, PathBuf)>,
}

impl CutDisk {
    fn after(operations: usize) -> Arc<CutDisk> {
        Arc::new(CutDisk(Mutex::new(State {
            left: operations,
            ..State::default()
        })))
    }

    fn step<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.0.lock().unwrap();
        if state.left == 0 {
            return Err(io::Error::other("the power failed"));
        }
        state.left -= 1;
        work(&mut state)
    }

    /// What a disk shows after a power cut: contents that were not synced are cut, names that were not synced may be lost.
    fn lose(&self, root: &Path, names: bool) {
        let mut state = self.0.lock().unwrap();
        let moved = std::mem::take(&mut state.moved);
        for (from, to) in moved.into_iter().rev().filter(|_| names) {
            // Its directory may be gone: then so is the file.
            if std::fs::rename(&to, &from).is_err() {
                std::fs::remove_file(&to).unwrap();
            }
        }
        let mut left = vec![root.join("models"), root.join("datasets")];
        while let Some(path) = left.pop() {
            if path.is_dir() {
                left.extend(
                    std::fs::read_dir(path)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
            } else if !state.synced.contains(&path) {
                std::fs::write(&path, b"").unwrap();
            }
        }
    }
}

impl Disk for CutDisk {
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.step(|state| {
            state.synced.remove(path);
            LocalDisk.write(path, bytes)
        })
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.step(|state| {
            state.synced.remove(path);
            LocalDisk.append(path, bytes)
        })
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        self.step(|state| {
            state.synced.insert(path.to_owned());
            LocalDisk.sync(path)
        })
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.step(|_| LocalDisk.create_dir(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(|state| {
            if state.synced.remove(from) {
                state.synced.insert(to.to_owned());
            }
            state.moved.push((from.to_owned(), to.to_owned()));
            LocalDisk.rename(from, to)
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step(|state| {
            state.moved.retain(|(_, to)| to.parent() != Some(path));
            LocalDisk.sync_dir(path)
        })
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        LocalDisk.read(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        LocalDisk.list(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(|_| LocalDisk.remove(path))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.step(|_| LocalDisk.remove_dir(path))
    }

    fn free(&self, path: &Path) -> io::Result<u64> {
        LocalDisk.free(path)
    }
}

fn now() -> DateTime<Utc> {
    at(START)
}

async fn call(store: &Store, operation: &str, body: Value) -> Value {
    let identity = Identity {
        region: "eu-west-1".into(),
        account: "123456789012".into(),
    };
    operations::call(store, &identity, now(), operation, &body)
        .await
        .unwrap()
}

async fn describe(store: &Store) -> Value {
    call(store, "DescribeDataset", json!({"DatasetName": "d"})).await
}

/// Does the ingestion that is due, with rows that begin with `first`.
async fn ingest(store: &Store, first: f64) -> anyhow::Result<()> {
    let job = store.due_ingestion().await?.expect("a job");
    let workspace = store.files().workspace(&job.id)?;
    let mut parts = Vec::new();
    for (number, component) in ["a", "b"].into_iter().enumerate() {
        let mut writer = PartWriter::create(&workspace, number, component, &["s".to_owned()]);
        writer.begin(&[0])?;
        for row in 0..100 {
            writer.push(row, &[first + row as f64 * (number as f64 + 1.0)])?;
        }
        parts.push(writer.finish()?);
    }
    let staged = store.files().stage_dataset(&job.id, parts)?;
    let found = Ingested {
        staged,
        schema: r#"{"Components": []}"#.into(),
        quality: json!({
            "InsufficientSensorData": {"MissingCompleteSensorData": {"AffectedSensorCount": 0},
                "SensorsWithShortDateRange": {"AffectedSensorCount": 1}},
            "MissingSensorData": {"AffectedSensorCount": 0, "TotalNumberOfMissingValues": 0},
            "InvalidSensorData": {"AffectedSensorCount": 0, "TotalNumberOfInvalidValues": 0},
            "UnsupportedTimestamps": {"TotalNumberOfUnsupportedTimestamps": 0},
            "DuplicateTimestamps": {"TotalNumberOfDuplicateTimestamps": 0},
        }),
        files: json!({"TotalNumberOfFiles": 1, "IngestedNumberOfFiles": 1}),
        size: 1,
        start_us: 0,
        end_us: 99,
        statistics: Vec::new(),
    };
    Ok(store.ingestion_succeeded(&job, found, now()).await?)
}

/// The name of the rows that the dataset holds.
async fn held(store: &Store) -> Option<String> {
    store.dataset_rows("d").await.unwrap()
}

#[tokio::test]
async fn a_power_cut_at_any_step_leaves_every_dataset_and_model_whole_or_to_be_made_again() {
    let mut unfinished = 0;
    for names_lost in [false, true] {
        for operations in 0.. {
            let directory = tempfile::tempdir().unwrap();
            let root = directory.path();
            let store = Store::open(root).unwrap();
            call(
                &store,
                "CreateDataset",
                json!({"DatasetName": "d", "ClientToken": "t"}),
            )
            .await;
            let start = |token: &str| {
                let location = json!({"Bucket": "plant", "Prefix": "p/", "KeyPattern": "{prefix}/{component_name}/*"});
                let input = json!({"S3InputConfiguration": location});
                json!({"DatasetName": "d", "IngestionInputConfiguration": input, "ClientToken": token,
                       "RoleArn": "arn:aws:iam::123456789012:role/lookoutd"})
            };
            call(&store, "StartDataIngestionJob", start("one")).await;
            ingest(&store, 0.0).await.unwrap();
            let before = held(&store).await.unwrap();
            call(&store, "StartDataIngestionJob", start("two")).await;
            drop(store);

            let disk = CutDisk::after(operations);
            {
                let synced = &mut disk.0.lock().unwrap().synced;
                for entry in std::fs::read_dir(root.join("datasets")).unwrap() {
                    synced.insert(entry.unwrap().path());
                }
            }
            let done = match Store::open_with(root, Files::on(root, disk.clone())) {
                Err(_) => false,
                Ok(store) => {
                    let new = NewModel::of("m", model(), "eu-west-1", "123456789012");
                    ingest(&store, 1.0).await.is_ok()
                        && store.register_model(new, now()).await.is_ok()
                }
            };
            disk.lose(root, names_lost);

            let store = Store::open(root).unwrap();
            let finished = describe(&store).await["Status"] == "ACTIVE";
            let rows = held(&store).await.unwrap();
            assert_eq!(finished, rows != before, "{operations}");
            store.files().dataset(&rows).unwrap().verify().unwrap();
            if !finished {
                unfinished += 1;
                ingest(&store, 1.0).await.unwrap();
            }
            let swept = store.sweep().await.unwrap();
            assert_eq!(
                (swept.unknown, swept.missing),
                (vec![], vec![]),
                "{operations}"
            );
            let rows = held(&store).await.unwrap();
            store.files().dataset(&rows).unwrap().verify().unwrap();
            let names = std::fs::read_dir(root.join("datasets")).unwrap().count();
            assert_eq!(names, 3, "an index and the rows of two components");
            let models = std::fs::read_dir(root.join("models")).unwrap().count();
            let list = call(&store, "ListModels", json!({})).await;
            let listed = list["ModelSummaries"].as_array().unwrap().len();
            assert_eq!(models, listed, "{operations}");
            if listed == 1 {
                let version = store.next_to_make(now()).await.unwrap();
                assert!(version.is_none());
            }
            if done {
                assert!(operations > 15, "{operations} steps");
                break;
            }
        }
    }
    assert!(unfinished > 15, "{unfinished}");
}
