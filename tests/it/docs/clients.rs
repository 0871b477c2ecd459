//! The AWS CLI, called as the documents say: with the variables they set and the commands they give, against a service.

use std::collections::BTreeMap;
use std::process::Command;

use super::two_machines::serve;
use super::{commands, documents, words};
use crate::rig::directory;

#[test]
fn the_aws_cli_does_what_the_documents_say() {
    let Some(python) = crate::skipped::python() else {
        return;
    };
    let place = directory();
    let options = "--listen 127.0.0.1:0 --s3-listen 127.0.0.1:0";
    let (_service, api, s3) = serve(place.path(), options);
    std::fs::create_dir(place.path().join("training-data")).unwrap();
    std::fs::write(place.path().join("training-data/pump.csv"), "Timestamp,a\n").unwrap();
    let mapped = |text: &str| {
        text.replace("127.0.0.1:9180", &format!("127.0.0.1:{api}"))
            .replace("127.0.0.1:9190", &format!("127.0.0.1:{s3}"))
            .replace("D/credentials", "service/credentials")
            .replace("./credentials", "service/credentials")
    };
    let mut called = 0;
    let mut all = documents();
    all.sort();
    for (path, text) in all {
        let mut variables: BTreeMap<String, String> = BTreeMap::new();
        for line in commands(&text) {
            let words = words(&mapped(&line));
            match words[0].as_str() {
                "export" => variables.extend(words[1..].iter().map(|word| {
                    let (name, value) = word.split_once('=').unwrap();
                    (name.to_owned(), value.to_owned())
                })),
                // Another machine's, or a thing that the reader has.
                "aws" if !line.contains("service.example") && !line.contains("ARN") => {
                    let output = Command::new(python.with_file_name("aws"))
                        .current_dir(place.path())
                        .args(&words[1..])
                        .env("AWS_CONFIG_FILE", "/dev/null")
                        .env("AWS_EC2_METADATA_DISABLED", "true")
                        .env_remove("AWS_ACCESS_KEY_ID")
                        .env_remove("AWS_SECRET_ACCESS_KEY")
                        .env_remove("AWS_PROFILE")
                        // What a document leaves out leads nowhere, and not to the cloud.
                        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
                        .envs(&variables)
                        .output()
                        .unwrap();
                    assert!(
                        output.status.success(),
                        "{}: {line}: {}",
                        path.display(),
                        String::from_utf8_lossy(&output.stderr)
                    );
                    called += 1;
                }
                _ => {}
            }
        }
    }
    assert!(called >= 3, "{called} commands");
}
