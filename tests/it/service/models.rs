//! `lookoutd model` against the API: training from an ingested dataset, and the models that there are then.

use aws_sdk_lookoutequipment::types::{
    IngestionInputConfiguration, IngestionJobStatus, IngestionS3InputConfiguration,
};
use chrono::TimeDelta;

use super::plant::{BUCKET, COMPONENTS, Plant, ROLE, START, at, csv_of};
use crate::commands::lookoutd;

/// A plant with an ingested day in the dataset `day`, and a configuration that names its API.
pub async fn with_dataset() -> Plant {
    with_dataset_in(Plant::start().await).await
}

/// The same in a plant that is there.
pub async fn with_dataset_in(plant: Plant) -> Plant {
    let begun = at(START) - TimeDelta::days(3);
    for (component, _) in COMPONENTS {
        let rows = csv_of(component, begun, 2 * 24 * 60, 0.0);
        plant.place(&format!("train/{component}/rows.csv"), rows.as_bytes());
    }
    let label = begun + TimeDelta::hours(30);
    let (start, end) = (label, label + TimeDelta::hours(2));
    let line = format!("{},{}\n", start.format("%FT%T"), end.format("%FT%T"));
    plant.place("labels/labels.csv", line.as_bytes());
    let ranges = [0, 24, 24, 48].map(|hours| (begun + TimeDelta::hours(hours)).format("%F %T"));
    let ranges = ranges.map(|range| range.to_string()).join("\n");
    std::fs::write(plant.directory.path().join("timeranges.txt"), ranges).unwrap();
    let keys = "[default]\naws_access_key_id = AKIDTEST\naws_secret_access_key = secret\n";
    std::fs::write(plant.directory.path().join("keys"), keys).unwrap();
    let config = format!(
        "[inference]\nendpoint_url = \"http://{}\"\nrole_arn = \"{ROLE}\"\n[s3]\nregion = \"eu-west-1\"\ncredentials_file = \"{}\"\n",
        plant.address,
        plant.directory.path().join("keys").display()
    );
    std::fs::write(plant.directory.path().join("lookoutd.toml"), config).unwrap();

    let create = plant.api.create_dataset().dataset_name("day");
    create.send().await.unwrap();
    let location = IngestionS3InputConfiguration::builder()
        .bucket(BUCKET)
        .prefix("train/")
        .key_pattern("{prefix}/{component_name}/*");
    let input = IngestionInputConfiguration::builder()
        .s3_input_configuration(location.build().unwrap())
        .build();
    let start = plant.api.start_data_ingestion_job().dataset_name("day");
    let start = start.ingestion_input_configuration(input).role_arn(ROLE);
    let job = start.send().await.unwrap().job_id.unwrap();
    loop {
        let job = plant.api.describe_data_ingestion_job().job_id(&job);
        let job = job.send().await.unwrap();
        if job.status() != Some(&IngestionJobStatus::InProgress) {
            assert_eq!(job.status(), Some(&IngestionJobStatus::Success), "{job:?}");
            return plant;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// What `lookoutd model ARGUMENTS` ends with, and what it says on both channels.
async fn model(plant: &Plant, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = lookoutd();
    command
        .arg("model")
        .args(arguments)
        .arg("--config")
        .arg(plant.directory.path().join("lookoutd.toml"))
        .current_dir(plant.directory.path());
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_trains_from_a_dataset_and_lists_shows_and_deletes_the_model() {
    let plant = with_dataset().await;
    let train = [
        &["train", "--dataset", "day", "--name", "pumps"][..],
        &["--timeranges", "timeranges.txt", "--sampling", "PT5M"],
        &["--labels-s3", "s3://plant/labels/"],
    ]
    .concat();
    let (code, said, errors) = model(&plant, &train).await;
    assert_eq!(code, Some(0), "{said}{errors}");
    for line in [
        "model        pumps",
        "status       SUCCESS",
        "dataset      day",
        "sampling     PT5M",
        "version      1",
        "trained on   2026-02-26T10:02:00Z to 2026-02-27T10:02:00Z",
        "of 1 labelled events found",
    ] {
        assert!(said.contains(line), "{line} is not in\n{said}");
    }

    // What is listed and shown is what the API says.
    let (_, listed, _) = model(&plant, &["list", "--output", "json"]).await;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let names: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["name"])
        .collect();
    assert_eq!(names, ["model-1", "pumps"]);
    let (_, table, _) = model(&plant, &["list"]).await;
    assert!(
        table.starts_with("MODEL") && table.contains("pumps"),
        "{table}"
    );
    let (_, shown, _) = model(&plant, &["show", "pumps", "--output", "json"]).await;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let described = plant.api.describe_model().model_name("pumps").send();
    let described = described.await.unwrap();
    assert_eq!(shown["arn"], described.model_arn().unwrap());
    assert_eq!(shown["status"], "SUCCESS");
    let metrics: serde_json::Value =
        serde_json::from_str(described.model_metrics().unwrap()).unwrap();
    assert_eq!(shown["metrics"], metrics);

    let (code, _, errors) = model(&plant, &["delete", "pumps"]).await;
    assert_eq!(code, Some(0), "{errors}");
    let (code, _, errors) = model(&plant, &["show", "pumps"]).await;
    assert!(
        code != Some(0) && errors.contains("pumps"),
        "{code:?} {errors}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn training_from_the_api_names_what_is_wrong_before_and_after_it_asks() {
    let plant = with_dataset().await;
    // No such dataset; a labels address that is none; a model that cannot be made of a range without rows.
    let (code, _, errors) = model(&plant, &["train", "--dataset", "night", "--name", "m"]).await;
    assert!(code != Some(0) && errors.contains("night"), "{errors}");
    let labels = [
        "train",
        "--dataset",
        "day",
        "--name",
        "m",
        "--labels-s3",
        "labels/",
    ];
    let (code, _, errors) = model(&plant, &labels).await;
    assert!(
        code != Some(0) && errors.contains("s3://bucket/prefix/"),
        "{errors}"
    );
    let empty = [0, 24, 24, 48].map(|hours| (at(START) + TimeDelta::hours(hours)).format("%F %T"));
    let empty = empty.map(|range| range.to_string()).join("\n");
    std::fs::write(plant.directory.path().join("later.txt"), empty).unwrap();
    let late = [
        "train",
        "--dataset",
        "day",
        "--name",
        "m",
        "--timeranges",
        "later.txt",
    ];
    let (code, _, errors) = model(&plant, &late).await;
    assert!(
        code != Some(0) && errors.contains("model m is FAILED: "),
        "{code:?} {errors}"
    );
}
