//! `lookoutd model register`: puts a model file under the service's care without its training API, for a model that was
//! trained elsewhere and for one whose state database was lost.
//!
//! The file is checked whole first. It works on the state itself, under the data directory's lock, so the service must be
//! stopped; the file is copied and stays where it is.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::cli::{ConfigArgs, runtime};
use crate::clock::Clock;
use crate::inference::is_name;
use crate::model::Model;
use crate::ops::lock;
use crate::service::store::{NewModel, Store};

/// Arguments of `model register`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd model register pump.model --name pump-model --data-dir /var/lib/lookoutd
  lookoutd model register models.lost/5b0e-1.model --name pump-model    after a state.db was lost")]
pub struct RegisterArgs {
    /// Model file, as `model train --out` writes it and the service keeps it
    file: PathBuf,
    /// Name of the model; one that is there gets the file as its next version, active at once
    #[arg(long, value_name = "NAME")]
    name: String,
    #[command(flatten)]
    config: ConfigArgs,
}

pub fn run(args: &RegisterArgs) -> Result<ExitCode> {
    ensure!(
        is_name(&args.name),
        "--name \"{}\": write 1 to 200 letters, digits, - and _",
        args.name
    );
    let bytes = std::fs::read(&args.file)
        .with_context(|| format!("cannot read {}", args.file.display()))?;
    let model = Model::decode(&bytes).with_context(|| args.file.display().to_string())?;
    let config = args.config.load()?.config;
    let data_dir = config.data_dir();
    let _lock = lock::lock(&data_dir)?;
    let store = Store::open(&data_dir.join("service"))?;
    let sensors = model.sensors().len();
    let new = NewModel {
        // The very bytes, whatever this build would write.
        file: bytes,
        ..NewModel::of(
            &args.name,
            &model,
            &config.service.region,
            &config.service.account,
        )
    };
    let version = runtime()?
        .block_on(store.register_model(new, Clock::system().now()))
        .map_err(|fault| anyhow::anyhow!("the model cannot be registered: {fault}"))?;
    say!(
        "model {} has version {version} with {sensors} sensors, active now; start the service again",
        args.name
    );
    Ok(ExitCode::SUCCESS)
}
