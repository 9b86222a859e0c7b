//! What several of the tests need.

use std::collections::BTreeMap;

/// A folder with these files.
pub(crate) fn on_disk(files: &BTreeMap<String, String>) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    directory
}
