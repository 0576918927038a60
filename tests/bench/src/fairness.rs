//! What another user's signatures take while one user keeps a token at work in sixty connections. They are compared
//! with signatures beside as many connections that send Ping at the same rate.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use p11_client::message::{
    ChangePin, CreateKey, DeleteKey, KeySpec, KeyType, ListKeys, OpenKey, Ping, Sign,
};
use p11_client::{Client, Config, Pin};
use p11_fault_module::Random;
use p11_proto::Request;
use p11_tests::fixture::SO_PIN;
use p11_tests::process::become_user;
use p11_tests::raw_client::RawClient;

use crate::measure::micros;
use crate::signers::{KEY, MESSAGE, Ours, PIN};

/// How many key pairs the token has.
pub const PAIRS: usize = 50;

/// The user who disturbs others.
const USER: u32 = 4711;

/// How many connections that user has.
const CONNECTIONS: u32 = 60;

/// How often each side has its turn.
const ROUNDS: usize = 5;

/// The longest pause between two signatures, in µs. Without pauses nearly all of them would fall between two
/// disturbances, since one that waits for the end of a disturbance is only one.
const PAUSE: u64 = 4_000;

/// The label of the keys that are created.
const PASSING: &str = "passing";

const TOKEN: &str = "pkcs11:token=device";

/// What one user does over and over.
struct Disturbance {
    name: &'static str,
    request: fn() -> Request,
    /// Whether no signature can be made meanwhile, so that one waits for it.
    closes: bool,
    /// How long each side has its turn: a few requests at least.
    turn: Duration,
}

const DISTURBANCES: [Disturbance; 4] = [
    Disturbance {
        name: "creates RSA-4096 keys",
        request: || {
            let rsa = KeySpec::new(KeyType::Rsa, 4096);
            Request::CreateKey(CreateKey::new(TOKEN, rsa, PASSING))
        },
        closes: false,
        turn: Duration::from_secs(8),
    },
    Disturbance {
        name: "asks for a key that is missing",
        request: || Request::OpenKey(OpenKey::new("pkcs11:token=device;object=missing")),
        closes: false,
        turn: Duration::from_secs(3),
    },
    Disturbance {
        name: "lists keys",
        request: || Request::ListKeys(ListKeys::new(TOKEN)),
        closes: false,
        turn: Duration::from_secs(3),
    },
    Disturbance {
        name: "resets the PIN",
        request: || {
            let reset = ChangePin::new(PIN).so_pin(Pin::from(SO_PIN)).reset(true);
            Request::ChangePin(reset)
        },
        closes: true,
        turn: Duration::from_secs(3),
    },
];

/// What the other user is compared with.
const PING: &str = "sends Ping";

/// Signatures beside a disturbance, and undisturbed.
pub struct Fairness {
    /// What the other user does.
    pub name: &'static str,
    /// Beside it.
    pub disturbed: Signatures,
    /// Beside Pings.
    pub undisturbed: Signatures,
    /// What the disturbance and a signature after it take with nobody else, where a signature has to wait for it.
    pub own: Duration,
}

/// Signatures of one side.
#[derive(Default)]
pub struct Signatures {
    times: Vec<Duration>,
    /// How many failed.
    pub failed: usize,
    /// How many requests of the other user were answered meanwhile, and in what time.
    answered: (u64, Duration),
}

impl Signatures {
    /// Signs for a while beside another user, who ends then.
    fn add(
        &mut self,
        mut other: Child,
        turn: Duration,
        sign: impl Fn() -> Result<(), p11_client::Error>,
    ) {
        let mut said = BufReader::new(other.stdout.take().unwrap()).lines();
        said.next().expect("it is ready").unwrap();
        let mut random = Random::new(1);
        let start = Instant::now();
        while start.elapsed() < turn {
            thread::sleep(Duration::from_micros(random.below(PAUSE)));
            let began = Instant::now();
            let signed = sign();
            self.times.push(began.elapsed());
            if let Err(error) = signed {
                if self.failed == 0 {
                    eprintln!("a signature failed: {error}");
                }
                self.failed += 1;
            }
        }
        self.answered.1 += start.elapsed();
        drop(other.stdin.take());
        let answered: u64 = said.next().unwrap().unwrap().parse().unwrap();
        self.answered.0 += answered;
        other.wait().unwrap();
    }

    /// A quantile, in µs.
    pub fn quantile(&self, percent: usize) -> f64 {
        let mut times = self.times.clone();
        times.sort_unstable();
        micros(times[times.len() * percent / 100])
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.times.len()
    }

    /// Requests of the other user in a second.
    pub fn rate(&self) -> f64 {
        self.answered.0 as f64 / self.answered.1.as_secs_f64()
    }
}

/// Measures all. `Err` says why that cannot be.
pub fn measure(store: &Path) -> Result<Vec<Fairness>, &'static str> {
    if !geteuid().is_root() {
        return Err("left out, since only root can be two users");
    }
    let ours = Ours::on_softhsm(store, 0);
    let folder = ours.socket().parent().unwrap().to_owned();
    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(ours.socket(), Permissions::from_mode(0o666)).unwrap();
    let client = Client::new(Config::new(ours.socket()));
    let key = client.open_key(OpenKey::new(KEY)).unwrap();
    let sign = || {
        let sign = Sign::new(key.uri.as_str(), 0x0403, MESSAGE.to_vec(), key.identity);
        client.sign(sign).map(drop)
    };
    let all = DISTURBANCES.iter().map(|disturbance| {
        let Disturbance { name, turn, .. } = disturbance;
        eprintln!("another user {name} …");
        let own = match disturbance.closes {
            true => alone(&ours, disturbance, &sign),
            false => Duration::ZERO,
        };
        let (mut disturbed, mut undisturbed) = (Signatures::default(), Signatures::default());
        for _ in 0..ROUNDS {
            disturbed.add(other_user(&ours, name, 0.0), *turn, sign);
            settle(&client);
            undisturbed.add(other_user(&ours, PING, disturbed.rate()), *turn, sign);
        }
        Fairness {
            name,
            disturbed,
            undisturbed,
            own,
        }
    });
    Ok(all.collect())
}

/// The median of a disturbance and a signature after it.
fn alone(
    ours: &Ours,
    disturbance: &Disturbance,
    sign: &impl Fn() -> Result<(), p11_client::Error>,
) -> Duration {
    let mut raw = RawClient::admitted(&ours.socket());
    let mut times: Vec<_> = (0..9)
        .map(|_| {
            let began = Instant::now();
            raw.ask(&(disturbance.request)()).unwrap();
            sign().unwrap();
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// Starts the process of the other user.
fn other_user(ours: &Ours, name: &str, rate: f64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .arg("disturb")
        .arg(ours.socket())
        .args([name, &rate.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for what the other user has begun, and deletes what is left of it.
fn settle(client: &Client) {
    let keys = client.list_keys(ListKeys::new(TOKEN)).unwrap();
    for key in keys.objects {
        if key.label == PASSING {
            // One goes with its other half.
            let _ = client.delete_key(DeleteKey::new(key.uri.as_str()));
        }
    }
}

/// Disturbs the users of a server until there is no more input, and says how many requests were answered.
pub fn disturb(socket: &Path, name: &str, rate: f64) {
    become_user(USER, USER);
    let known = DISTURBANCES.iter().find(|known| known.name == name);
    let request = known.map_or(Request::Ping(Ping::default()), |known| (known.request)());
    // None where it is as fast as can be.
    let interval = (rate > 0.0).then(|| Duration::from_secs_f64(f64::from(CONNECTIONS) / rate));
    let answered: &AtomicU64 = Box::leak(Box::default());
    for number in 0..CONNECTIONS {
        let (socket, request) = (socket.to_owned(), request.clone());
        let mut raw = RawClient::admitted(&socket);
        thread::spawn(move || {
            // Spread over the interval.
            let offset = interval.map(|interval| interval * number / CONNECTIONS);
            let mut due = Instant::now() + offset.unwrap_or_default();
            loop {
                if let Some(interval) = interval {
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    due += interval;
                }
                match raw.ask(&request) {
                    Some(_) => _ = answered.fetch_add(1, Ordering::Relaxed),
                    None => raw = RawClient::admitted(&socket),
                }
            }
        });
    }
    println!("ready");
    let _ = std::io::stdin().read(&mut [0]);
    println!("{}", answered.load(Ordering::Relaxed));
    std::process::exit(0);
}
