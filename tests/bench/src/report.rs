//! The report: a table for people, and a picture for the README.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::fairness::Fairness;
use crate::footprint::Footprint;
use crate::handshake::THREADS;
use crate::measure::{Figures, micros};
use crate::searches::Searches;

/// All that was measured in one run.
pub struct Report {
    /// Signatures, one client at a time.
    pub one: Vec<Figures>,
    /// Signatures, four clients at once.
    pub four: Vec<Figures>,
    /// Ours, with more objects and with more connections.
    pub burden: Vec<Figures>,
    /// Requests over a new connection each, one client at a time.
    pub connections: Vec<Figures>,
    /// A user's signatures while another one disturbs, or why they were left out.
    pub fairness: Result<Vec<Fairness>, &'static str>,
    /// Searches and listings.
    pub searches: Vec<Searches>,
    /// Handshakes, with each number of threads.
    pub handshakes: [Vec<Figures>; THREADS.len()],
    /// Signatures of a software TPM, one client at a time.
    pub tpm: Vec<Figures>,
    /// The server itself.
    pub footprint: Footprint,
}

/// What a signature over a new connection may cost, in pings and signatures.
const NEW: &str = "1.25 times or less";

impl Report {
    /// The tables, in Markdown.
    pub fn print(&self) {
        println!("\n{}", self.tables());
    }

    fn tables(&self) -> String {
        let mut out = String::new();
        for (title, figures) in [
            ("signatures, one client", &self.one),
            ("signatures, four clients", &self.four),
            ("ours under burden, one client", &self.burden),
            ("over a new connection each, one client", &self.connections),
            ("TLS 1.3 handshakes, one client", &self.handshakes[0]),
            ("signatures of a software TPM, one client", &self.tpm),
        ] {
            let _ = writeln!(
                out,
                "| {title} | median µs | 99 % µs | a second |\n|---|--:|--:|--:|"
            );
            for of in figures {
                let Figures {
                    name,
                    median,
                    p99,
                    rate,
                    ..
                } = of;
                let _ = writeln!(out, "| {name} | {median:.0} | {p99:.0} | {rate:.0} |");
            }
            out.push('\n');
        }
        self.write_threads(&mut out);
        self.write_fairness(&mut out);
        let _ = writeln!(out, "| searches | median ms | slowest ms |\n|---|--:|--:|");
        for Searches {
            name,
            median,
            slowest,
            ..
        } in &self.searches
        {
            let _ = writeln!(out, "| {name} | {median:.1} | {slowest:.1} |");
        }
        let _ = writeln!(out, "\n| figure | measured | goal |\n|---|--:|--:|");
        for (name, value, goal) in self.goals() {
            let _ = writeln!(out, "| {name} | {value} | {goal} |");
        }
        out
    }

    fn write_threads(&self, out: &mut String) {
        let _ = write!(
            out,
            "| TLS 1.3 handshakes a second, threads of one client |"
        );
        for threads in THREADS {
            let _ = write!(out, " {threads} |");
        }
        let _ = writeln!(out, "\n|---|{}", "--:|".repeat(THREADS.len()));
        for (index, one_thread) in self.handshakes[0].iter().enumerate() {
            let _ = write!(out, "| {} |", one_thread.name);
            for figures in &self.handshakes {
                let _ = write!(out, " {:.0} |", figures[index].rate);
            }
            out.push('\n');
        }
        out.push('\n');
    }

    fn write_fairness(&self, out: &mut String) {
        let title = "another user's signatures while one user, in 60 connections, …";
        let all = match &self.fairness {
            Ok(all) => all,
            Err(why) => {
                let _ = writeln!(out, "{title} {why}.\n");
                return;
            }
        };
        let _ = writeln!(
            out,
            "| {title} | median µs | 99 % µs | requests a second | failed |\n|---|--:|--:|--:|--:|"
        );
        for Fairness {
            name,
            disturbed,
            undisturbed,
            ..
        } in all
        {
            let pings = "sends Ping at this rate";
            for (name, signatures) in [(*name, disturbed), (pings, undisturbed)] {
                let _ = writeln!(
                    out,
                    "| {name} | {:.0} | {:.0} | {:.0} | {} of {} |",
                    signatures.quantile(50),
                    signatures.quantile(99),
                    signatures.rate(),
                    signatures.failed,
                    signatures.count()
                );
            }
        }
        out.push('\n');
    }

    fn goals(&self) -> Vec<(String, String, &'static str)> {
        let mut goals = Vec::new();
        let mut goal = |name: &str, value, goal| goals.push((name.to_owned(), value, goal));
        let (one, four, new) = (&self.one, &self.four, &self.connections);
        let ours = of(one, "ours");
        goal(
            "one client, median, against the bare signer",
            format!("{:.2} times", ours.times(of(one, "bare signer"))),
            "1.15 times or less",
        );
        goal(
            "one client, against p11-kit",
            format!("{:.2} times faster", of(one, "p11-kit").times(ours)),
            "1.5 times faster",
        );
        let share = |of_what| of(four, "ours").rate / of(four, of_what).rate * 100.0;
        goal(
            "four clients, signatures a second, against the bare signer",
            format!("{:.0} %", share("bare signer")),
            "85 % or more",
        );
        goal(
            "four clients, signatures a second, against raw with four threads",
            format!("{:.0} %", share("raw C_Sign")),
            "",
        );
        let raw = of(new, "raw C_Sign");
        let whose = [("bare signer", ""), ("protocol 1", NEW), ("tedge1", NEW)];
        for (protocol, limit) in whose {
            let ping = of(new, &format!("Ping, {protocol}"));
            let signature = of(new, &format!("signature, {protocol}"));
            goal(
                &format!("over a new connection, {protocol}, against Ping and raw C_Sign"),
                format!("{:.2} times", signature.times(&ping.plus(raw))),
                limit,
            );
        }
        for index in [1, 2] {
            let burdened = &self.burden[index];
            goal(
                &format!("{}, against {}", burdened.name, self.burden[0].name),
                format!("{:+.1} %", (burdened.times(&self.burden[0]) - 1.0) * 100.0),
                "within 10 %",
            );
        }
        for of in self.fairness.iter().flatten() {
            // What may come on top is one signature, and what no signature can be made beside.
            let more = of.undisturbed.quantile(50) + micros(of.own);
            let beside = match of.own.is_zero() {
                true => String::new(),
                false => format!("one reset ({:.0} ms) and ", of.own.as_secs_f64() * 1e3),
            };
            goal(
                &format!(
                    "another user {}: 99 %, less {beside}one signature, against Pings",
                    of.name
                ),
                format!(
                    "{:.1} times",
                    (of.disturbed.quantile(99) - more) / of.undisturbed.quantile(99)
                ),
                "3 times or less",
            );
        }
        for of in self.searches.iter().filter(|of| of.has_goal) {
            goal(
                &format!("{}, slowest", of.name),
                format!("{:.0} ms", of.slowest),
                "under 1,000 ms",
            );
        }
        let on_tpm = of(&self.tpm, "ours").times(of(&self.tpm, "raw C_Sign"));
        goal(
            "TPM: our overhead over raw C_Sign",
            format!("{:+.1} %", (on_tpm - 1.0) * 100.0),
            "under 5 %",
        );
        let Footprint {
            resident,
            bare,
            size,
            first_signature,
        } = &self.footprint;
        goal(
            "resident memory over a bare process",
            format!("{:.1} MiB", (*resident as f64 - *bare as f64) / 1024.0),
            "6 MiB or less",
        );
        goal(
            "release binary, stripped",
            format!("{:.2} MB", *size as f64 / 1e6),
            "2.5 MB or less",
        );
        goal(
            "from exec to the first signature",
            format!("{first_signature:.0} ms"),
            "",
        );
        goals
    }

    /// Bars of the median times, as an SVG.
    pub fn draw(&self, file: &Path) {
        const ROW: usize = 26;
        const WIDTH: f64 = 380.0;
        let groups = [
            ("one signature, µs (median, one client)", &self.one),
            (
                "one TLS 1.3 handshake, µs (median, one client)",
                &self.handshakes[0],
            ),
        ];
        let rows: usize = groups.iter().map(|(_, figures)| figures.len() + 2).sum();
        let height = rows * ROW;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"640\" height=\"{height}\" \
             font-family=\"sans-serif\" font-size=\"14\">\n\
             <rect width=\"640\" height=\"{height}\" fill=\"#ffffff\"/>\n"
        );
        let mut y = ROW;
        for (title, figures) in groups {
            let _ = writeln!(
                svg,
                "<text x=\"12\" y=\"{y}\" font-weight=\"bold\">{title}</text>"
            );
            let longest = figures.iter().map(|of| of.median).fold(1.0, f64::max);
            for of in figures {
                y += ROW;
                let bar = WIDTH * of.median / longest;
                let fill = if of.name == "ours" {
                    "#1a7f37"
                } else {
                    "#9aa4af"
                };
                let _ = writeln!(
                    svg,
                    "<text x=\"12\" y=\"{y}\">{}</text>\
                     <rect x=\"150\" y=\"{}\" width=\"{bar:.0}\" height=\"16\" fill=\"{fill}\"/>\
                     <text x=\"{:.0}\" y=\"{y}\">{:.0}</text>",
                    of.name,
                    y - 13,
                    158.0 + bar,
                    of.median,
                );
            }
            y += 2 * ROW;
        }
        svg.push_str("</svg>\n");
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(file, svg).unwrap();
        println!("drawn in {}", file.display());
    }
}

fn of<'f>(figures: &'f [Figures], name: &str) -> &'f Figures {
    figures
        .iter()
        .find(|figures| figures.name == name)
        .expect("a candidate")
}
