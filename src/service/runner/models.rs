//! Decoded models in memory, by file: an execution starts by looking its model up here.
//!
//! A model file never changes once written, so a cached model is never stale. The cache is bounded by what it holds and not
//! by how many: a thousand schedulers with small models keep them all, since one that misses reads and decodes its model at
//! every boundary. The least recently used model goes first.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::Model;

/// Bytes of memory that decoded models may take; one of 122 sensors takes about 2 MB.
const CAPACITY: usize = 256 << 20;

/// The cache.
#[derive(Default)]
pub struct Models(Mutex<Kept<Arc<Model>>>);

/// What was used lately, by path, up to so many bytes.
struct Kept<T> {
    entries: HashMap<PathBuf, Entry<T>>,
    bytes: usize,
    uses: u64,
}

struct Entry<T> {
    value: T,
    bytes: usize,
    used: u64,
}

impl Models {
    /// The model in `path`. Reads the file on the blocking pool when it is not cached.
    pub async fn get(&self, path: &Path) -> anyhow::Result<Arc<Model>> {
        if let Some(model) = self.lock().get(path) {
            return Ok(model);
        }
        let file = path.to_owned();
        let read = tokio::task::spawn_blocking(move || -> anyhow::Result<Model> {
            Ok(Model::decode(&std::fs::read(&file)?)?)
        });
        let model = Arc::new(read.await??);
        let bytes = model.resident_bytes();
        self.lock().keep(path, Arc::clone(&model), bytes, CAPACITY);
        Ok(model)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept<Arc<Model>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Kept {
            entries: HashMap::new(),
            bytes: 0,
            uses: 0,
        }
    }
}

impl<T: Clone> Kept<T> {
    fn get(&mut self, path: &Path) -> Option<T> {
        self.uses += 1;
        let entry = self.entries.get_mut(path)?;
        entry.used = self.uses;
        Some(entry.value.clone())
    }

    fn keep(&mut self, path: &Path, value: T, bytes: usize, capacity: usize) {
        self.uses += 1;
        let used = self.uses;
        let entry = Entry { value, bytes, used };
        if let Some(before) = self.entries.insert(path.to_owned(), entry) {
            self.bytes -= before.bytes;
        }
        self.bytes += bytes;
        while self.bytes > capacity && self.entries.len() > 1 {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used);
            let Some(path) = oldest.map(|(path, _)| path.clone()) else {
                return;
            };
            if let Some(gone) = self.entries.remove(&path) {
                self.bytes -= gone.bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_when_the_bytes_do_not_fit() {
        let mut kept = Kept::default();
        let path = |name: &str| PathBuf::from(name);
        kept.keep(&path("a"), 1, 40, 100);
        kept.keep(&path("b"), 2, 40, 100);
        assert_eq!(kept.get(&path("a")), Some(1));
        kept.keep(&path("c"), 3, 40, 100);
        assert_eq!(
            (kept.get(&path("a")), kept.get(&path("b"))),
            (Some(1), None)
        );
        // Read twice at once: counted once.
        kept.keep(&path("c"), 3, 40, 100);
        assert_eq!((kept.bytes, kept.entries.len()), (80, 2));
        // One that is larger than all there is room for is kept alone.
        kept.keep(&path("d"), 4, 500, 100);
        assert_eq!((kept.get(&path("d")), kept.entries.len()), (Some(4), 1));
    }
}
