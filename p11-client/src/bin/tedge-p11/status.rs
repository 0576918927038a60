//! `tedge-p11 status`: whether signatures can be had, in one line.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use p11_client::message::{
    Account, Counters, LoginState, PinOwner, Status as Told, StatusDetails, TokenStatus,
};
use serde::Serialize;

use crate::exit::{Exit, Refusal};
use crate::metrics;
use crate::output::{BAD, GOOD, print_text, printable, say};
use crate::session::{Options, Session};
use crate::x509::rfc3339;

/// In one line, whether the server can sign
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tedge-p11 status
  tedge-p11 status --json
  tedge-p11 status --metrics >/var/lib/node_exporter/p11.prom")]
pub struct Status {
    /// Metrics in Prometheus' text format, for the textfile collector of node_exporter; a server that is away is one, too
    #[arg(long, conflicts_with = "json")]
    metrics: bool,
}

/// See docs/command.md.
#[derive(Serialize)]
struct Answer<'a> {
    ok: bool,
    server: &'a str,
    trouble: Option<&'a str>,
    uptime: Option<u64>,
    account: Option<String>,
    module: Option<&'a str>,
    tokens: Option<Vec<Token<'a>>>,
    hung: Option<Vec<Hung<'a>>>,
    counters: Option<Count>,
    last_error: Option<LastError<'a>>,
}

#[derive(Serialize)]
struct Token<'a> {
    label: &'a str,
    uri: &'a str,
    pin: LoginState,
    since: Option<String>,
    pin_origin: Option<&'a str>,
    reason: Option<&'a str>,
}

#[derive(Serialize)]
struct Hung<'a> {
    function: &'a str,
    seconds: u64,
    token: Option<&'a str>,
}

#[derive(Serialize)]
struct Count {
    signatures: u64,
    failures: u64,
    logins: u64,
    reloads: u64,
    connections: Option<u64>,
    signed_at: Option<String>,
    signing_us: Option<u64>,
}

#[derive(Serialize)]
struct LastError<'a> {
    at: Option<String>,
    code: String,
    message: &'a str,
}

impl Status {
    pub fn run(&self, options: &Options) -> Result<(), Refusal> {
        match (self.metrics, ask(options)) {
            (false, asked) => asked.and_then(|(session, status)| answer(&session, &status)),
            (true, Ok((_, status))) => print_text(&metrics::of(Some(&status))),
            (true, Err(refusal)) if refusal.exit == Exit::Unreachable => {
                say(&refusal.message);
                print_text(&metrics::of(None))
            }
            (true, Err(refusal)) => Err(refusal),
        }
    }
}

fn ask(options: &Options) -> Result<(Session, Told), Refusal> {
    let mut session = Session::open(options)?;
    let mut status = session.ask("asking for the status", |client| client.status())?;
    let is_new = |details: &StatusDetails| details.tokens.is_empty();
    if status.available && status.details.as_deref().is_some_and(is_new) {
        // A server that was just started has looked for no token yet.
        session.ask("looking for tokens", |client| client.list_tokens())?;
        status = session.ask("asking for the status", |client| client.status())?;
    }
    Ok((session, status))
}

fn answer(session: &Session, status: &Told) -> Result<(), Refusal> {
    let details = status.details.as_deref();
    let mut tokens = details.into_iter().flat_map(|details| &details.tokens);
    let closed = tokens.find(|token| is_closed(token));
    let exit = match (status.available, closed) {
        (false, _) => Some(Exit::Unavailable),
        (true, Some(_)) => Some(Exit::Pin),
        (true, None) => None,
    };
    let answer = Answer {
        ok: exit.is_none(),
        server: &status.server,
        trouble: status.trouble.as_deref(),
        uptime: status.uptime,
        account: status.account.as_ref().map(account),
        module: details.map(|details| details.module.path.as_str()),
        tokens: details.map(|details| details.tokens.iter().map(token).collect()),
        hung: details.map(hung),
        counters: details.map(|details| count(&details.counters)),
        last_error: details.and_then(last_error),
    };
    session.output.answer(&answer, || match (exit, closed) {
        (None, _) => format!("{GOOD}ok:{GOOD:#} {}", fares(status)),
        (Some(_), Some(token)) if status.available => {
            format!("{BAD}NOT OK:{BAD:#} {}", why_closed(token))
        }
        (Some(_), _) => {
            let trouble = status
                .trouble
                .as_deref()
                .unwrap_or("its module cannot be used");
            format!("{BAD}NOT OK:{BAD:#} {}: {trouble}", status.server)
        }
    })?;
    // The answer says it.
    exit.map_or(Ok(()), |exit| Err(Refusal::told(exit)))
}

/// Whether no request without a PIN can use a token's keys, since the one that the server has for it is not taken.
fn is_closed(token: &TokenStatus) -> bool {
    match token.pin {
        LoginState::Locked => true,
        // A client that brings a wrong one harms itself alone.
        LoginState::Refused | LoginState::Guarded => token.pin_owner != Some(PinOwner::Client),
        _ => false,
    }
}

/// "1 token, 1284 signatures in 10 h, the last 4 s ago (12 ms)"
fn fares(status: &Told) -> String {
    let Some(details) = &status.details else {
        return status.server.clone();
    };
    let tokens = match details.tokens.len() {
        1 => "1 token".to_owned(),
        count => format!("{count} tokens"),
    };
    let signatures = match details.counters.signatures {
        0 => "no signature yet".to_owned(),
        1 => "1 signature".to_owned(),
        count => format!("{count} signatures"),
    };
    let up = status.uptime.map(|uptime| format!(", up {}", span(uptime)));
    let mut text = format!(
        "{}{}, {tokens}, {signatures}",
        status.server,
        up.unwrap_or_default()
    );
    if let (Some(at), Some(took)) = (details.counters.signed_at, details.counters.signing_us) {
        let ago = span(now().saturating_sub(at));
        text += &format!(", the last {ago} ago ({} ms)", took.div_ceil(1000));
    }
    text
}

fn why_closed(token: &TokenStatus) -> String {
    let state = match token.pin {
        LoginState::Refused => "has refused the PIN",
        LoginState::Guarded => "gets no PIN",
        _ => "takes no PIN",
    };
    let since = token.since.and_then(rfc3339);
    let since = since.map(|since| format!(" since {since}"));
    let origin = token.pin_origin.as_ref();
    let origin = origin.map(|origin| format!(" (from {origin})"));
    format!(
        "the token \"{}\" {state}{}{}: {}",
        printable(&token.label),
        origin.unwrap_or_default(),
        since.unwrap_or_default(),
        token
            .reason
            .as_deref()
            .unwrap_or("the server's log says why")
    )
}

fn token(token: &TokenStatus) -> Token<'_> {
    Token {
        label: &token.label,
        uri: &token.uri,
        pin: token.pin,
        since: token.since.and_then(rfc3339),
        pin_origin: token.pin_origin.as_deref(),
        reason: token.reason.as_deref(),
    }
}

fn hung(details: &StatusDetails) -> Vec<Hung<'_>> {
    let calls = details.hung.iter().map(|call| Hung {
        function: &call.function,
        seconds: call.seconds,
        token: call.token.as_deref(),
    });
    calls.collect()
}

fn count(counters: &Counters) -> Count {
    Count {
        signatures: counters.signatures,
        failures: counters.failures,
        logins: counters.logins,
        reloads: counters.reloads,
        connections: counters.connections,
        signed_at: counters.signed_at.and_then(rfc3339),
        signing_us: counters.signing_us,
    }
}

fn last_error(details: &StatusDetails) -> Option<LastError<'_>> {
    let error = details.last_error.as_ref()?;
    Some(LastError {
        at: rfc3339(error.at),
        code: error.code.to_string(),
        message: &error.message,
    })
}

fn account(account: &Account) -> String {
    let number = || account.uid.to_string();
    account.user.clone().unwrap_or_else(number)
}

/// "4 s", "12 min", "10 h", "3 days"
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or(Duration::ZERO).as_secs()
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn a_time_is_told_in_the_unit_that_fits() {
        let told = [0, 119, 120, 7199, 7200, 172_799, 172_800].map(span);
        assert_eq!(
            told,
            ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 days"]
        );
    }
}
