//! What the commands about the scheduler share: which API, which scheduler, what it is to be.

use anyhow::{Context, bail};
use aws_sdk_lookoutequipment::Client;
use serde::Serialize;

use crate::config::Config;
use crate::daemon::{EMBEDDED_BUCKET, EMBEDDED_PREFIX, EMBEDDED_SCHEDULER};
use crate::embedded::KeyPair;
use crate::inference::{self, SchemaComponent, Target, Wanted, describe, model_schema};
use crate::signal::TagList;

/// The service's own variable of the standard AWS environment.
const ENDPOINT: &str = "AWS_ENDPOINT_URL_LOOKOUTEQUIPMENT";

/// The API of a configuration: the configured one; that which the environment names for this service; that of the embedded
/// daemon on this data directory; or where none has run there, that which the environment or the profile names for all.
pub async fn api(config: &Config) -> anyhow::Result<Client> {
    let data_dir = config.data_dir();
    let is_elsewhere = !config.is_embedded()
        || !config.inference.endpoint_url.is_empty()
        || std::env::var(ENDPOINT).is_ok_and(|named| !named.is_empty())
        || !data_dir.join("credentials").exists()
            && config
                .s3
                .load()
                .await
                .endpoint("LookoutEquipment")
                .is_some();
    if is_elsewhere {
        return Ok(config.inference.client(&config.s3).await.client);
    }
    if !data_dir.join("credentials").exists() {
        bail!(
            "no credentials in {}: has lookoutd run there? set --data-dir, inference.endpoint_url or {ENDPOINT}",
            data_dir.display()
        );
    }
    let keys = KeyPair::load_or_create(&data_dir)?;
    let listen = &config.service.listen;
    if let Err(error) = tokio::net::TcpStream::connect(listen).await
        && error.kind() == std::io::ErrorKind::ConnectionRefused
    {
        bail!(
            "the embedded API at {listen} does not answer: it is there while lookoutd run runs on {}. Start it; with \
             inference.wanted = \"observe\" it leaves the scheduler alone",
            data_dir.display()
        );
    }
    Ok(inference::local_client(
        &format!("http://{}", config.service.listen),
        &keys.access_key,
        &keys.secret_key,
    ))
}

/// The named scheduler, or the configured one.
pub fn scheduler(config: &Config, name: Option<&str>) -> anyhow::Result<String> {
    match (name, config.inference.scheduler.as_str()) {
        (Some(name), _) => Ok(name.to_owned()),
        (None, "") if config.is_embedded() => Ok(EMBEDDED_SCHEDULER.to_owned()),
        (None, "") => None.context("which scheduler? name it, or set inference.scheduler"),
        (None, name) => Ok(name.to_owned()),
    }
}

/// What the scheduler is to be, as the daemon would have it.
pub fn target(config: &Config, name: &str) -> Target {
    let (bucket, prefix) = input(config);
    Target {
        scheduler: name.to_owned(),
        ..config
            .inference
            .target(config.feed.cadence, config.naming, &bucket, &prefix)
    }
}

/// Bucket and key prefix of the input files.
pub fn input(config: &Config) -> (String, String) {
    let prefix = &config.s3.input_prefix;
    if !config.is_embedded() {
        return (config.s3.bucket.clone(), prefix.clone());
    }
    let prefix = if prefix.is_empty() {
        EMBEDDED_PREFIX
    } else {
        prefix
    };
    (EMBEDDED_BUCKET.to_owned(), prefix.to_owned())
}

/// One thing in which the feeder and the scheduler do not agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disagreement {
    /// What differs.
    pub what: String,
    /// What to do about it.
    pub fix: String,
}

/// How the configuration and the scheduler compare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// The scheduler.
    pub scheduler: String,
    /// Its status, or `absent`.
    pub status: String,
    /// In what they do not agree; empty where the scheduler finds what the feeder writes.
    pub disagreements: Vec<Disagreement>,
}

/// Compares what will be written with what the scheduler looks for. `None` where no scheduler is configured. Without a tag
/// list the model's schema is not compared.
pub async fn compare(
    config: &Config,
    tags: Option<&TagList>,
) -> anyhow::Result<Option<Comparison>> {
    if config.inference.scheduler.is_empty() {
        return Ok(None);
    }
    let name = scheduler(config, None)?;
    let client = api(config).await?;
    let target = target(config, &name);
    let mut comparison = Comparison {
        scheduler: name.clone(),
        status: "absent".into(),
        disagreements: Vec::new(),
    };
    let mut say = |what: String, fix: String| {
        comparison.disagreements.push(Disagreement { what, fix });
    };
    let model = match describe(&client, &name).await? {
        Some(have) => {
            let keeps = target.wanted != Wanted::Observe;
            if keeps && have.model != target.model {
                say(
                    format!(
                        "the scheduler runs model {}, inference.model says {}",
                        have.model, target.model
                    ),
                    format!("correct inference.model, or lookoutd scheduler delete {name} --wait"),
                );
            }
            for difference in have.differences(&target) {
                let fix = if keeps {
                    format!(
                        "lookoutd run updates it; or set {} to \"{}\"",
                        difference.key, difference.have
                    )
                } else {
                    format!(
                        "set {} to \"{}\", or update the scheduler",
                        difference.key, difference.have
                    )
                };
                say(difference.to_string(), fix);
            }
            comparison.status = have.status;
            have.model
        }
        None if target.wanted == Wanted::Observe => {
            say(
                format!("there is no scheduler {name} to observe"),
                "correct inference.scheduler, or set inference.wanted to \"running\"".into(),
            );
            target.model
        }
        None => target.model,
    };
    let (false, Some(tags)) = (model.is_empty(), tags) else {
        return Ok(Some(comparison));
    };
    match model_schema(&client, &model).await {
        Ok(Some(schema)) => comparison.disagreements.extend(unlike(&schema, tags)),
        Ok(None) => {}
        Err(error) if error.is_not_found() => comparison.disagreements.push(Disagreement {
            what: format!("there is no model {model}"),
            fix: "train or import it, or correct inference.model".into(),
        }),
        Err(error) => return Err(error.into()),
    }
    Ok(Some(comparison))
}

/// In what the model's schema and the tag list differ. Without a file for every component an execution fails.
fn unlike(schema: &[SchemaComponent], tags: &TagList) -> Vec<Disagreement> {
    let mut found = Vec::new();
    for wanted in schema {
        let Some(component) = tags.components.iter().find(|have| have.name == wanted.name) else {
            let near = tags
                .components
                .iter()
                .find(|have| have.name.eq_ignore_ascii_case(&wanted.name))
                .map(|have| format!("; {} differs only in case", have.name))
                .unwrap_or_default();
            found.push(Disagreement {
                what: format!(
                    "the model expects component {}, the tag list has none{near}: every execution would fail",
                    wanted.name
                ),
                fix: "correct the Subsystem column of source.tags, or train without the component".into(),
            });
            continue;
        };
        let absent = |from: &[String], of: &[String]| -> Vec<String> {
            of.iter()
                .filter(|name| !from.contains(name))
                .cloned()
                .collect()
        };
        let missing = absent(&component.signals, &wanted.sensors);
        if !missing.is_empty() {
            found.push(Disagreement {
                what: format!(
                    "component {}: the model expects {}, which the tag list does not have",
                    wanted.name,
                    missing.join(", ")
                ),
                fix: "add them to source.tags, or train without them".into(),
            });
        }
        let unknown = absent(&wanted.sensors, &component.signals);
        if !unknown.is_empty() {
            found.push(Disagreement {
                what: format!(
                    "component {}: the model does not know {}",
                    wanted.name,
                    unknown.join(", ")
                ),
                fix: "remove them from source.tags, or train with them".into(),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Component;

    #[test]
    fn a_schema_that_the_tag_list_does_not_fit_is_told_component_by_component() {
        let component = |name: &str, signals: &[&str]| Component {
            name: name.into(),
            signals: signals.iter().map(|signal| (*signal).to_owned()).collect(),
            ..Component::default()
        };
        let wanted = |name: &str, sensors: &[&str]| SchemaComponent {
            name: name.into(),
            sensors: sensors.iter().map(|sensor| (*sensor).to_owned()).collect(),
        };
        let tags = TagList {
            components: vec![component("Pump", &["a"]), component("fan", &["x", "y"])],
        };
        assert_eq!(unlike(&[wanted("fan", &["x", "y"])], &tags), []);
        let found = unlike(&[wanted("pump", &["a"]), wanted("fan", &["x", "z"])], &tags);
        let texts: Vec<_> = found.iter().map(|one| one.what.as_str()).collect();
        assert_eq!(texts.len(), 3);
        assert!(
            texts[0].contains("Pump differs only in case"),
            "{}",
            texts[0]
        );
        assert!(texts[1].contains("expects z") && texts[2].contains("does not know y"));
    }
}
