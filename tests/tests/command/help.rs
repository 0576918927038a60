//! `--help` and `completions`

use std::{fs, process::Command};

use p11_tests::{
    binary,
    tools::{command, run},
};

/// What a command line prints that needs no server.
fn prints(arguments: &[&str]) -> String {
    let mut command = binary::tedge_p11();
    String::from_utf8(run(command.args(arguments))).unwrap()
}

/// The commands that a page of help lists.
fn commands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = lines.take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_help_of_each_command_teaches_with_an_example_that_it_takes() {
    let mut pages = 0;
    for name in commands(&prints(&["--help"])) {
        let nested = commands(&prints(&[&name, "--help"]));
        let paths = match nested.is_empty() {
            true => vec![vec![name]],
            false => nested
                .into_iter()
                .map(|inner| vec![name.clone(), inner])
                .collect(),
        };
        for path in paths {
            let words: Vec<_> = path.iter().map(String::as_str).chain(["--help"]).collect();
            let help = prints(&words);
            let start = format!("  tedge-p11 {}", path.join(" "));
            let examples: Vec<_> = help
                .lines()
                .filter(|line| line.starts_with(&start))
                .collect();
            assert!(!examples.is_empty(), "{help}");
            for example in examples {
                is_taken(example);
            }
            pages += 1;
        }
    }
    assert!(pages >= 13, "{pages} pages");
}

/// The command line understands an example: what fails is that there is no server.
fn is_taken(example: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = binary::tedge_p11().get_program().to_owned();
    let script = format!(
        "tedge-p11() {{ {} \"$@\" --wait 0; }}\n{}",
        path.to_str().unwrap(),
        example.split('>').next().unwrap()
    );
    fs::write(folder.path().join("firmware.bin"), "").unwrap();
    let mut shell = Command::new("bash");
    shell.args(["-c", &script]).current_dir(folder.path());
    shell
        .env("TEDGE_DEVICE_CRYPTOKI_SOCKET_PATH", "/none")
        .env("TEDGE_CONFIG_DIR", folder.path());
    let ended = shell.arg("--").output().unwrap();
    // `check` answers with it, the others refuse.
    let said = [ended.stdout, ended.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let is_taken = ended.status.success() || said.contains("there is no socket");
    assert!(is_taken, "{example}: {said}");
}

#[test]
fn shells_take_their_completions() {
    let script = tempfile::NamedTempFile::new().unwrap();
    fs::write(script.path(), prints(&["completions", "bash"])).unwrap();
    let completed = run(command("bash").arg("-c").arg(format!(
        r#"source {}; complete=$(complete -p tedge-p11); complete=${{complete#*-F }}
        COMP_WORDS=(tedge-p11 create); COMP_CWORD=1
        ${{complete%% *}} tedge-p11 create tedge-p11; echo "${{COMPREPLY[@]}}""#,
        script.path().display()
    )));
    assert_eq!(String::from_utf8_lossy(&completed), "create-key\n");
    for shell in ["zsh", "fish"] {
        assert!(prints(&["completions", shell]).contains("create-key"));
    }
}
