//! A status as metrics, in Prometheus' text exposition format 0.0.4.

use std::fmt::{Display, Write};

use p11_client::message::{Status, StatusDetails};

/// All metrics; of a server that is away the first alone.
pub fn of(status: Option<&Status>) -> String {
    let mut metrics = Metrics::default();
    metrics.gauge(
        "p11_up",
        "Whether the server answers.",
        u8::from(status.is_some()),
    );
    let Some(status) = status else {
        return metrics.0;
    };
    let available = u8::from(status.available);
    metrics.gauge(
        "p11_available",
        "Whether the module can be used.",
        available,
    );
    if let Some(uptime) = status.uptime {
        metrics.gauge(
            "p11_uptime_seconds",
            "For how long the server has run.",
            uptime,
        );
    }
    if let Some(details) = &status.details {
        add_details(&mut metrics, details);
    }
    metrics.0
}

fn add_details(metrics: &mut Metrics, details: &StatusDetails) {
    let counters = &details.counters;
    for (name, help, count) in [
        (
            "p11_signatures_total",
            "Signatures that were made.",
            Some(counters.signatures),
        ),
        (
            "p11_failures_total",
            "Requests that failed.",
            Some(counters.failures),
        ),
        (
            "p11_logins_total",
            "Logins that succeeded.",
            Some(counters.logins),
        ),
        (
            "p11_reloads_total",
            "Reloads of the module.",
            Some(counters.reloads),
        ),
        (
            "p11_connections_total",
            "Connections that were accepted.",
            counters.connections,
        ),
    ] {
        if let Some(count) = count {
            metrics.add(name, "counter", help, [(String::new(), count)]);
        }
    }
    if let Some(at) = counters.signed_at {
        let help = "When the last signature was made.";
        metrics.gauge("p11_last_signature_timestamp_seconds", help, at);
    }
    if let Some(micros) = counters.signing_us {
        let seconds = std::time::Duration::from_micros(micros).as_secs_f64();
        metrics.gauge(
            "p11_last_signature_duration_seconds",
            "How long it took.",
            seconds,
        );
    }
    let help = "Calls of the module that have not returned.";
    metrics.gauge("p11_hung_calls", help, details.hung.len());
    let tokens = details.tokens.iter().map(|token| {
        let (label, uri) = (value(&token.label), value(&token.uri));
        let labels = format!(
            "{{token=\"{label}\",uri=\"{uri}\",state=\"{}\"}}",
            token.pin
        );
        (labels, 1)
    });
    metrics.add(
        "p11_token_pin",
        "gauge",
        "How the server's PIN stands with a token.",
        tokens,
    );
}

#[derive(Default)]
struct Metrics(String);

impl Metrics {
    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.add(name, "gauge", help, [(String::new(), value)]);
    }

    fn add<V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = (String, V)>,
    ) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }
}

/// The value of a label.
fn value(text: &str) -> String {
    let escaped = text.replace('\\', r"\\").replace('"', "\\\"");
    escaped.replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn no_label_of_a_token_ends_the_value_that_it_is() {
        assert_eq!(value("a\"b\\c\nd"), r#"a\"b\\c\nd"#);
    }
}
