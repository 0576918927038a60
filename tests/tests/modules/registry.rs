//! Modules that are registered with p11-kit, for programs in a namespace.

use std::{fs, path::Path};

use p11_tests::namespace::Namespace;
use tempfile::TempDir;

/// A registry of its own.
pub struct Registry {
    pub namespace: Namespace,
    _folder: TempDir,
}

impl Registry {
    /// With these modules: a name, the module's file, and further lines as in pkcs11.conf(5).
    pub fn new(modules: &[(&str, &Path, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, module, more) in modules {
            let text = format!("module: {}\n{more}\n", module.display());
            fs::write(folder.path().join(format!("{name}.module")), text).unwrap();
        }
        let namespace = Namespace::new(&[(folder.path(), "/usr/share/p11-kit/modules")]);
        Self {
            namespace,
            _folder: folder,
        }
    }
}
