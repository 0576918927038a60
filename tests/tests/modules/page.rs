//! `docs/modules.md`: a row for each module, written by the module's test where `UPDATE_DOCS` is set, and held against
//! what the test saw where it is not.

use std::{
    env,
    fs::{self, File},
};

use p11_proto::Scheme;
use p11_tests::tools::{command, run};

use crate::life::{Seen, joined};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/modules.md");

/// Asserts that the page says this of a module. The page was made with some versions of the `packages` that make up
/// the module; with others it may tell more or less, and has nothing to say.
pub fn assert_told(module: &str, packages: &[&str], seen: &Seen) {
    let versions: Vec<_> = packages.iter().map(|package| version(package)).collect();
    let row = row(module, &versions.join(", "), seen);
    // Tests of other modules write, too.
    let page = File::open(PAGE).expect("the page is there");
    page.lock().unwrap();
    let text = fs::read_to_string(PAGE).unwrap();
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(PAGE, with_row(&text, module, &row)).unwrap();
        return;
    }
    let told = text.lines().find(|line| cell(line, 0) == cell(&row, 0));
    let told = told.unwrap_or_else(|| panic!("{PAGE} lacks a row:\n{row}"));
    if cell(told, 1) == cell(&row, 1) {
        assert_eq!(told, row, "UPDATE_DOCS=1 writes it to {PAGE}");
    }
}

/// The page with this row in the place of the module's old one, or at the place that its name gives it.
fn with_row(text: &str, module: &str, row: &str) -> String {
    let name = format!("| {module} |");
    let (head, table) = text.split_once("|---|").expect("a table");
    let mut lines = table.lines();
    let rule = lines.next().unwrap_or_default();
    let mut rows: Vec<&str> = lines.filter(|line| !line.starts_with(&name)).collect();
    rows.push(row);
    rows.sort_unstable();
    format!("{head}|---|{rule}\n{}\n", rows.join("\n"))
}

fn cell(row: &str, number: usize) -> Option<&str> {
    row.split('|').nth(number + 1).map(str::trim)
}

fn row(module: &str, versions: &str, seen: &Seen) -> String {
    let calls: Vec<_> = seen.calls.iter().map(u64::to_string).collect();
    let cells = [
        module,
        versions,
        &or_dash(joined(&seen.made)),
        &or_dash(seen.found.join(", ")),
        &or_dash(signed(&seen.signed)),
        &or_dash(seen.changed.join(", ")),
        &or_dash(seen.cannot.join("; ")),
        &or_dash(calls.join(" or ")),
    ];
    format!("| {} |", cells.join(" | "))
}

fn or_dash(text: String) -> String {
    match text.is_empty() {
        true => "–".into(),
        false => text,
    }
}

/// Keys that sign alike stand together.
fn signed(signed: &[(String, Vec<Scheme>)]) -> String {
    let mut groups: Vec<(Vec<String>, String)> = Vec::new();
    for (kind, schemes) in signed {
        let names: Vec<_> = schemes.iter().map(|scheme| short(*scheme)).collect();
        let schemes = joined(&names);
        match groups.iter_mut().find(|(_, known)| *known == schemes) {
            Some((kinds, _)) => kinds.push(kind.clone()),
            None => groups.push((vec![kind.clone()], schemes)),
        }
    }
    let texts: Vec<_> = groups
        .iter()
        .map(|(kinds, schemes)| match kinds.contains(schemes) {
            true => schemes.clone(),
            false => format!("{}: {}", joined(kinds), or_dash(schemes.clone())),
        })
        .collect();
    texts.join("; ")
}

/// A scheme beside the kind of the key.
fn short(scheme: Scheme) -> String {
    match scheme {
        Scheme::Ed25519 => "Ed25519".into(),
        other => {
            let name = other.name();
            let (_, hash) = name.rsplit_once("_sha").unwrap();
            let family = match name {
                name if name.starts_with("rsa_pss") => "PSS",
                name if name.starts_with("rsa_pkcs1") => "PKCS1",
                _ => "SHA",
            };
            format!("{family} {hash}")
        }
    }
}

/// The version of a package as its makers have it, without Debian's part.
fn version(package: &str) -> String {
    let show = ["--show", "--showformat=${Version}", package];
    let full = run(command("dpkg-query").args(show));
    let full = String::from_utf8(full).unwrap();
    let (_, version) = full.split_once(':').unwrap_or(("", &full));
    let end = version.find(['-', '+', '~']).unwrap_or(version.len());
    format!("{} {}", package, &version[..end])
}
