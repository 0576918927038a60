//! The report: a table for people, and a picture for the README.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::footprint::Footprint;
use crate::measure::Figures;

/// All that was measured in one run.
pub struct Report {
    /// Signatures, one client at a time.
    pub one: Vec<Figures>,
    /// Signatures, four clients at once.
    pub four: Vec<Figures>,
    /// Ours, with more objects and with more connections.
    pub burden: Vec<Figures>,
    /// Handshakes, one client at a time.
    pub handshakes: Vec<Figures>,
    /// Signatures of a software TPM, one client at a time.
    pub tpm: Vec<Figures>,
    /// The server itself.
    pub footprint: Footprint,
}

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
            ("TLS 1.3 handshakes, one client", &self.handshakes),
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
        let _ = writeln!(out, "| figure | measured | at least |\n|---|--:|--:|");
        for (name, value, goal) in self.goals() {
            let _ = writeln!(out, "| {name} | {value} | {goal} |");
        }
        out
    }

    fn goals(&self) -> Vec<(&'static str, String, &'static str)> {
        let (one, four) = (&self.one, &self.four);
        let ours = of(one, "ours");
        let change = |index: usize| (self.burden[index].times(&self.burden[0]) - 1.0) * 100.0;
        let Footprint {
            resident,
            bare,
            size,
            first_signature,
        } = &self.footprint;
        vec![
            (
                "one client, median, against the bare signer",
                format!("{:.2} times", ours.times(of(one, "bare signer"))),
                "1.15 times or less",
            ),
            (
                "one client, against p11-kit",
                format!("{:.2} times faster", of(one, "p11-kit").times(ours)),
                "1.5 times faster",
            ),
            (
                "four clients, signatures a second, against raw with four threads",
                format!(
                    "{:.0} %",
                    of(four, "ours").rate / of(four, "raw C_Sign").rate * 100.0
                ),
                "70 %",
            ),
            (
                "1,000 objects against ten",
                format!("{:+.1} %", change(1)),
                "within 10 %",
            ),
            (
                "200 idle connections against none",
                format!("{:+.1} %", change(2)),
                "within 10 %",
            ),
            (
                "TPM: our overhead over raw C_Sign",
                format!(
                    "{:+.1} %",
                    (of(&self.tpm, "ours").times(of(&self.tpm, "raw C_Sign")) - 1.0) * 100.0
                ),
                "under 5 %",
            ),
            (
                "resident memory over a bare process",
                format!("{:.1} MiB", (*resident as f64 - *bare as f64) / 1024.0),
                "6 MiB or less",
            ),
            (
                "release binary, stripped",
                format!("{:.2} MB", *size as f64 / 1e6),
                "1.6 MB or less",
            ),
            (
                "from exec to the first signature",
                format!("{first_signature:.0} ms"),
                "",
            ),
        ]
    }

    /// Bars of the median times, as an SVG.
    pub fn draw(&self, file: &Path) {
        const ROW: usize = 26;
        const WIDTH: f64 = 380.0;
        let groups = [
            ("one signature, µs (median, one client)", &self.one),
            (
                "one TLS 1.3 handshake, µs (median, one client)",
                &self.handshakes,
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
