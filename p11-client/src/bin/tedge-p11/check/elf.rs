//! What a shared library is built for, and which other libraries it needs (ELF).

use std::collections::HashSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use goblin::elf::Elf;
use goblin::elf::header::{EM_386, EM_AARCH64, EM_ARM, EM_RISCV, EM_X86_64, machine_to_str};

/// Larger files are no modules.
const MAX_BYTES: u64 = 256 << 20;

/// A library that can be read.
#[derive(Debug)]
pub struct Library {
    pub machine: u16,
    pub is_64_bit: bool,
    pub is_shared: bool,
    /// Whether another program can find PKCS#11's functions in it.
    pub has_function_list: bool,
    needed: Vec<String>,
    /// Where its own libraries are looked for first.
    folders: Vec<PathBuf>,
}

impl Library {
    pub fn read(file: &Path) -> Option<Library> {
        if fs::metadata(file).ok()?.len() > MAX_BYTES {
            return None;
        }
        let bytes = fs::read(file).ok()?;
        let elf = Elf::parse(&bytes).ok()?;
        let origin = file
            .parent()
            .unwrap_or(Path::new("/"))
            .display()
            .to_string();
        let paths = elf.runpaths.iter().chain(&elf.rpaths);
        let folders = paths.flat_map(|path| path.split(':'));
        let folders = folders.map(|folder| {
            let folder = folder.replace("${ORIGIN}", &origin);
            PathBuf::from(folder.replace("$ORIGIN", &origin))
        });
        let mut exported = elf.dynsyms.iter().filter(|symbol| !symbol.is_import());
        Some(Library {
            machine: elf.header.e_machine,
            is_64_bit: elf.is_64,
            is_shared: elf.is_lib,
            has_function_list: exported
                .any(|symbol| elf.dynstrtab.get_at(symbol.st_name) == Some("C_GetFunctionList")),
            needed: elf
                .libraries
                .iter()
                .map(|name| (*name).to_owned())
                .collect(),
            folders: folders.collect(),
        })
    }

    /// Whether a program of this machine can load it.
    pub fn is_of_this_machine(&self) -> bool {
        let machine = match env::consts::ARCH {
            "x86_64" => EM_X86_64,
            "x86" => EM_386,
            "aarch64" => EM_AARCH64,
            "arm" => EM_ARM,
            "riscv64" => EM_RISCV,
            _ => return true,
        };
        self.machine == machine && self.is_64_bit == cfg!(target_pointer_width = "64")
    }

    /// "aarch64"
    pub fn machine_name(&self) -> String {
        let name = match self.machine {
            EM_X86_64 => "x86_64",
            EM_386 => "x86",
            EM_AARCH64 => "aarch64",
            EM_ARM => "arm",
            EM_RISCV => "riscv",
            other => machine_to_str(other),
        };
        let bits = if self.is_64_bit { 64 } else { 32 };
        format!("{name} ({bits} bits)")
    }

    /// The libraries that it needs, or that those need, and that are nowhere: with who needs them.
    pub fn missing(&self, file: &Path) -> Vec<(String, PathBuf)> {
        let system = system_folders();
        let mut seen = HashSet::new();
        let mut missing = Vec::new();
        let mut todo = vec![(file.to_owned(), self.needed.clone(), self.folders.clone())];
        while let Some((by, needed, own)) = todo.pop() {
            for name in needed {
                if !seen.insert(name.clone()) {
                    continue;
                }
                let places = own.iter().chain(&system).map(|folder| folder.join(&name));
                let fits = |place: PathBuf| {
                    let library = Library::read(&place)?;
                    let is_alike =
                        library.machine == self.machine && library.is_64_bit == self.is_64_bit;
                    is_alike.then_some((place, library))
                };
                match places.filter(|place| place.exists()).find_map(fits) {
                    Some((place, library)) => todo.push((place, library.needed, library.folders)),
                    None => missing.push((name, by.clone())),
                }
            }
        }
        missing
    }
}

/// Where the dynamic linker looks: its variable, its configuration, and what is built into it.
fn system_folders() -> Vec<PathBuf> {
    let variable = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let mut folders: Vec<_> = env::split_paths(&variable).collect();
    folders.extend(configured(Path::new("/etc/ld.so.conf"), 0));
    let usual = ["/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib"];
    folders.extend(usual.map(PathBuf::from));
    // Debian's and musl's folders of an architecture are built into their linkers.
    let of_architecture = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let of_architecture = of_architecture.map(|entry| entry.path());
    folders.extend(of_architecture.filter(|folder| folder.to_string_lossy().contains("-linux-")));
    folders
}

/// The folders in a file of ldconfig(8), and in those that it includes.
fn configured(file: &Path, depth: usize) -> Vec<PathBuf> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut folders = Vec::new();
    for line in text.lines().filter_map(|line| line.split('#').next()) {
        let line = line.trim();
        match line.strip_prefix("include ") {
            None if line.is_empty() => {}
            None => folders.push(line.into()),
            // Distributions write /etc/ld.so.conf.d/*.conf.
            Some(pattern) if depth < 3 => {
                let folder = Path::new(pattern.trim()).parent().unwrap_or(Path::new("/"));
                for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                    folders.extend(configured(&entry.path(), depth + 1));
                }
            }
            Some(_) => {}
        }
    }
    folders
}
