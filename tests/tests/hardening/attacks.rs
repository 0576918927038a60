//! Hostile clients of a server, each kind in a thread of its own until it is dropped.

use std::{
    collections::VecDeque,
    io::{self, BufReader, Write},
    net::Shutdown,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use p11_fault_module::Random;
use p11_proto::{Request, frame};

use p11_tests::{raw_client::RawClient, requests::every_request};

/// Clients that do one thing over and over.
pub struct Attack {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Between two steps: an attack shall take the server's time, not all of a small machine's.
const PAUSE: Duration = Duration::from_millis(2);

/// How many connections an attack holds at a time.
const HELD: usize = 40;

/// No attack: as many clients, which send a Ping from time to time.
pub fn pings(socket: &Path) -> Attack {
    let mut held: VecDeque<_> = (0..HELD).map(|_| RawClient::admitted(socket)).collect();
    Attack::repeat(move || {
        held.rotate_left(1);
        assert!(held[0].ping());
    })
}

/// A user's clients, each of which sends a request again and again and waits for each answer.
pub fn requests(socket: &Path, request: &Request) -> Attack {
    let clients = (0..60).map(|_| {
        let (mut raw, request) = (RawClient::with_preamble(socket), request.clone());
        move || {
            raw.ask(&request).expect("an answer");
        }
    });
    Attack::repeat_all(clients, 20 * PAUSE)
}

/// Requests that arrive byte by byte, on many connections.
pub fn requests_byte_by_byte(socket: &Path) -> Attack {
    let bytes: Vec<u8> = frames().concat();
    let mut bytes = bytes.into_iter().cycle();
    let mut held = Held::new(socket);
    Attack::repeat(move || {
        let byte = bytes.next().expect("an endless list");
        held.each(|raw| raw.0.write_all(&[byte]));
    })
}

/// Clients that ask as much as the socket takes and read no answer.
pub fn answers_unread(socket: &Path) -> Attack {
    let [ping, ..] = &frames()[..] else {
        unreachable!();
    };
    // A socket takes so little as a whole or not at all.
    let pings = ping.repeat(100);
    let mut held = Held::new(socket);
    let attack = Attack::repeat(move || {
        held.each(|raw| {
            raw.0.set_nonblocking(true)?;
            raw.0.write_all(&pings)
        });
    });
    // Until no more answers fit, these are Pings as any others.
    thread::sleep(Duration::from_millis(300));
    attack
}

/// Clients that say half of a request and that this was all.
pub fn half_requests(socket: &Path) -> Attack {
    let halves = frames().into_iter().map(|frame| {
        let half = &frame[..frame.len() / 2];
        [&frame::PREAMBLE, half].concat()
    });
    say(socket, halves.collect(), true)
}

/// Clients that announce 4 GiB.
pub fn lengths_of_4_gib(socket: &Path) -> Attack {
    let claim = [&frame::PREAMBLE[..], &[0xff; 4], &[0; 1000]].concat();
    say(socket, vec![claim], false)
}

/// Every request, cut after every byte.
pub fn truncated_requests(socket: &Path) -> Attack {
    let whole = frames().into_iter();
    let texts = whole.map(|frame| [&frame::PREAMBLE, &frame[..]].concat());
    let cut = texts.flat_map(|text| (1..text.len()).map(move |end| text[..end].to_vec()));
    say(socket, cut.collect(), true)
}

/// Some thousand texts of random bytes, half of them frames.
pub fn random_bytes(socket: &Path) -> Attack {
    let mut random = Random::new(1);
    let texts = (0..3000).map(|number: u32| {
        let text = some_bytes(&mut random);
        match number % 2 {
            0 => text,
            _ => [&frame::PREAMBLE[..], &as_frame(&text)].concat(),
        }
    });
    say(socket, texts.collect(), false)
}

/// Frames of random messages, one after the other; each that was answered is counted.
pub fn random_frames(socket: &Path, answered: Arc<AtomicUsize>) -> Attack {
    let mut random = Random::new(2);
    let frame = move || as_frame(&message(&mut random));
    many_frames(socket, frame, b"\x81\xa5Error", answered)
}

/// No attack: frames of Ping in their place.
pub fn ping_frames(socket: &Path) -> Attack {
    let ping = frames().swap_remove(0);
    many_frames(
        socket,
        move || ping.clone(),
        b"\x81\xa4Pong",
        Arc::default(),
    )
}

/// Frames, one after the other, whose answers are maps with one entry: these bytes and more.
fn many_frames(
    socket: &Path,
    mut frame: impl FnMut() -> Vec<u8> + Send + 'static,
    expected: &'static [u8],
    answered: Arc<AtomicUsize>,
) -> Attack {
    let socket = socket.to_owned();
    Attack::repeat(move || {
        let mut raw = RawClient::with_preamble(&socket);
        let frames: Vec<_> = (0..200).map(|_| frame()).collect();
        // Those after one that is no message are never read.
        let _ = raw.0.write_all(&frames.concat());
        let _ = raw.0.shutdown(Shutdown::Write);
        let mut answers = BufReader::new(raw.0);
        while let Ok(Some(answer)) = frame::read(&mut answers) {
            assert!(answer.starts_with(expected), "{answer:?}");
            answered.fetch_add(1, Ordering::Relaxed);
        }
    })
}

fn as_frame(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes(), body].concat()
}

/// Up to 255 random bytes.
fn some_bytes(random: &mut Random) -> Vec<u8> {
    let length = random.below(256) as usize;
    random.bytes(length)
}

/// A message of a random name with random bytes in it; now and then nothing but random bytes.
fn message(random: &mut Random) -> Vec<u8> {
    let bytes = some_bytes(random);
    if random.below(256) == 0 {
        return bytes;
    }
    let name: Vec<_> = random
        .bytes(31)
        .iter()
        .map(|byte| b'a' + byte % 26)
        .collect();
    [&[0x81, 0xbf][..], &name, &[0xc4, bytes.len() as u8], &bytes].concat()
}

/// A frame of each request.
pub fn frames() -> Vec<Vec<u8>> {
    let requests = every_request();
    let frames = requests.iter().map(frame::encode);
    frames.map(|frame| frame.unwrap().to_vec()).collect()
}

/// Says each text on a connection of its own, with the end of all that will be said or without it.
fn say(socket: &Path, texts: Vec<Vec<u8>>, end: bool) -> Attack {
    let socket = socket.to_owned();
    let mut open = VecDeque::new();
    let mut texts = texts.into_iter().cycle();
    Attack::repeat(move || {
        let mut raw = RawClient::connect(&socket);
        // Whom the server refuses may not even get to speak.
        let _ = raw.0.write_all(&texts.next().expect("an endless list"));
        if end {
            let _ = raw.0.shutdown(Shutdown::Write);
        }
        open.push_back(raw);
        if open.len() > HELD {
            open.pop_front();
        }
    })
}

/// Connections that are made again when the server has closed them.
struct Held {
    socket: std::path::PathBuf,
    open: Vec<RawClient>,
}

impl Held {
    fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            open: Vec::new(),
        }
    }

    /// Takes a step on each connection; one that fails is closed, one that cannot go on is kept.
    fn each(&mut self, mut step: impl FnMut(&mut RawClient) -> io::Result<()>) {
        self.open.retain_mut(|raw| match step(raw) {
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            Ok(()) => true,
        });
        if self.open.len() < HELD {
            self.open.push(RawClient::with_preamble(&self.socket));
        }
    }
}

impl Attack {
    /// Whether none of its clients has failed.
    pub fn goes_on(&self) -> bool {
        !self.threads.iter().any(JoinHandle::is_finished)
    }

    fn repeat(step: impl FnMut() + Send + 'static) -> Self {
        Self::repeat_all([step], PAUSE)
    }

    fn repeat_all(
        steps: impl IntoIterator<Item = impl FnMut() + Send + 'static>,
        pause: Duration,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for mut step in steps {
            let stop = stop.clone();
            threads.push(thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    step();
                    thread::sleep(pause);
                }
            }));
        }
        Self { stop, threads }
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(thread::panicking() || ended.is_ok(), "the attack failed");
        }
    }
}
