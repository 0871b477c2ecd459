//! Decoded models in memory, by file: an execution starts by looking its model up here.
//!
//! A model file never changes once written, so a cached model is never stale. The cache is bounded; the least recently
//! used model goes first.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::Model;

/// Models kept; a model of 122 sensors is about 3 MB decoded.
const CAPACITY: usize = 64;

/// The cache.
#[derive(Default)]
pub struct Models(Mutex<Vec<(PathBuf, Arc<Model>)>>);

impl Models {
    /// The model in `path`. Reads the file on the blocking pool when it is not cached.
    pub async fn get(&self, path: &Path) -> anyhow::Result<Arc<Model>> {
        if let Some(model) = self.cached(path) {
            return Ok(model);
        }
        let file = path.to_owned();
        let read = tokio::task::spawn_blocking(move || -> anyhow::Result<Model> {
            let bytes = std::fs::read(&file)?;
            Ok(Model::decode(&bytes)?)
        });
        let model = Arc::new(read.await??);
        let mut models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if models.len() >= CAPACITY {
            models.remove(0);
        }
        models.push((path.to_owned(), Arc::clone(&model)));
        Ok(model)
    }

    fn cached(&self, path: &Path) -> Option<Arc<Model>> {
        let mut models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = models.iter().position(|(known, _)| known == path)?;
        let entry = models.remove(at);
        let model = Arc::clone(&entry.1);
        models.push(entry);
        Some(model)
    }
}
