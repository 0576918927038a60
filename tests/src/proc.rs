//! What the system tells of a running process (proc(5)).

use std::fs;

/// A number of its status, in KiB where it is a size; none when it is gone.
pub fn status(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let lines = status.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.into_iter().find(|(found, _)| *found == name)?;
    value.trim().trim_end_matches(" kB").parse().ok()
}

/// The names of its threads.
pub fn threads(pid: u32) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    // One that has ended meanwhile has no name.
    let names =
        threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("comm")).ok());
    names.map(|name| name.trim_end().to_owned()).collect()
}

/// How many files it has open.
pub fn files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}
