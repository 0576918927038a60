//! One connection from its beginning to its end: requests are read and handled, responses written.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use p11_proto::frame::Body;
use p11_proto::{Error, ErrorCode, Failure, Response, frame, tedge1};
use tracing::debug;

use super::body::{Allowance, Unreceived};
use super::budget::{Budget, Share};
use super::connection::{Answers, Connection};
use super::limits::{NO_PLACE, Permit, no_place};
use super::messages::{decode, encode, encode_old, refusal};
use super::rate::Rate;
use super::timeouts::{DeadlineStream, IoTimeouts};
use crate::daemon::audit::{Audit, Entry};
use crate::daemon::policy::Operation;
use crate::daemon::process::Process;
use crate::daemon::request::{RequestContext, Served};
use crate::daemon::{protocol1, tedge1 as old};
use crate::engine::Timeouts;
use crate::error::Error as ServiceError;

/// So many failures and listings of a user are answered at once, and one more after each pause; others are held back.
/// Who asks again and again, in many connections, takes no more of the processor from others than that.
const AT_ONCE: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);

/// The longest that an answer is held back.
const MOST_DELAY: Duration = Duration::from_secs(1);

/// What answers the requests of all connections.
pub(crate) struct Handler {
    served: RwLock<Arc<Served>>,
    process: Process,
    budget: Arc<Budget>,
    audit: Audit,
    /// Failures and listings.
    slow: Mutex<Rate>,
    timeouts: Timeouts,
}

impl Handler {
    /// A handler whose answers may take as long as the engine's `timeouts` say.
    pub fn new(served: Served, timeouts: Timeouts) -> Handler {
        Handler {
            served: RwLock::new(Arc::new(served)),
            process: Process::new(),
            budget: Arc::default(),
            audit: Audit::default(),
            slow: Mutex::new(Rate::new(AT_ONCE, PAUSE)),
            timeouts,
        }
    }

    /// From the next request on, this answers, and its policy holds.
    pub fn serve(&self, served: Served) {
        self.set_served(Arc::new(served));
    }

    /// From the next request on, what `other` would answer.
    pub fn serve_as(&self, other: &Handler) {
        self.set_served(other.served());
    }

    /// Tells a client why there is no place for it, in the protocol that it speaks if it has said so.
    pub fn refuse(&self, connection: &Connection, why: &str) {
        self.audit.refused_connection(&connection.peer, why);
        connection.close_after(&match connection.first_byte() {
            Some(tedge1::VERSION) => encode_old(&old::failure(&ServiceError::Busy(why.into()))),
            _ => encode(&Response::Error(Failure::new(ErrorCode::Busy, why))),
        });
    }

    /// Writes what was counted for the log.
    pub fn sum_up(&self) {
        self.audit.sum_up();
    }

    /// Serves a connection until the client leaves, errs or falls silent. Its first byte tells which
    /// protocol it speaks.
    ///
    /// # Errors
    /// What the system says; a client that leaves is no error.
    pub fn handle_connection(
        &self,
        connection: &Connection,
        timeouts: IoTimeouts,
        permit: Option<&mut Permit>,
    ) -> io::Result<()> {
        self.process.add_connection();
        let mut place = Place {
            permit,
            idle: timeouts.idle,
        };
        let mut stream = DeadlineStream::new(&connection.stream, timeouts)?;
        stream.set_idle(place.idle());
        let first = match stream.peek() {
            Err(error) if error.kind() == io::ErrorKind::TimedOut && !place.is_there() => {
                if !place.wait() {
                    self.refuse(connection, NO_PLACE);
                    return Ok(());
                }
                stream.set_idle(place.idle());
                stream.peek()
            }
            other => other,
        };
        match first? {
            None => Ok(()),
            Some(tedge1::VERSION) => self.handle_tedge1(connection, &mut stream, &mut place),
            Some(_) => match self.handle_protocol1(connection, &mut stream, &mut place) {
                Err(error) => {
                    debug!(peer = %connection.peer, "closing a connection: {error}");
                    if let Unreceived::Refused(failure) = &error {
                        self.audit.refused_unread(&connection.peer, failure.code);
                    }
                    let Some(failure) = refusal(&error, &stream) else {
                        return Ok(());
                    };
                    stream.send(&encode(&Response::Error(failure)))?;
                    stream.close()
                }
                Ok(()) => Ok(()),
            },
        }
    }

    /// Many requests, one after the other. Ends with `Ok` when the client is done, with an error when
    /// the connection cannot go on.
    fn handle_protocol1(
        &self,
        connection: &Connection,
        stream: &mut DeadlineStream<'_>,
        place: &mut Place<'_>,
    ) -> Result<(), Unreceived> {
        read_preamble(connection, stream)?;
        loop {
            stream.set_idle(place.idle());
            stream.next_request();
            let served = self.served();
            let allowance = self.allowance(connection, &served);
            let received = match allowance.read_frame(stream) {
                Err(error) if error.is_timeout() && !stream.has_begun() && !place.is_there() => {
                    if place.wait() {
                        continue;
                    }
                    return Err(self.without_place(connection));
                }
                other => other?,
            };
            let Some((body, _share)) = received else {
                return Ok(());
            };
            let request = decode(body)?;
            // What asks nothing of a token is answered at once.
            let needs_place = matches!(&request, Ok(request) if Operation::of(request).is_some());
            if needs_place && !place.wait() {
                return Err(self.without_place(connection));
            }
            let (deadline, entry) = match &request {
                Ok(request) => (
                    protocol1::deadline(request, &self.timeouts),
                    Entry::of(request),
                ),
                Err((name, failure)) => (self.timeouts.request, Entry::refused(name, failure.code)),
            };
            let Some(mut context) = self.begin(connection, deadline, entry) else {
                return Ok(());
            };
            let response = match request {
                Ok(request) => protocol1::answer(&mut context, &request),
                Err((_, failure)) => Response::Error(failure),
            };
            let is_listing = protocol1::is_listing(&response);
            let answer = encode(&response);
            // What it was made of is not kept while the client takes it.
            drop(response);
            let busy = |why: &str| encode(&Response::Error(Failure::new(ErrorCode::Busy, why)));
            let (answer, _share) = self.hold(&mut context, answer, is_listing, busy);
            let sent = self.respond(connection, stream, &context, &answer);
            // Whatever was sent after half an answer would stand in the middle of it.
            if let Err(error) = &sent {
                debug!(peer = %connection.peer, "an answer was not taken: {error}");
            }
            if !sent.unwrap_or(false) {
                return Ok(());
            }
        }
    }

    /// Nobody has made room for a connection.
    fn without_place(&self, connection: &Connection) -> Unreceived {
        self.audit.refused_connection(&connection.peer, NO_PLACE);
        Unreceived::Refused(no_place())
    }

    /// One request, which ends when the client shuts down its writing half.
    fn handle_tedge1(
        &self,
        connection: &Connection,
        stream: &mut DeadlineStream<'_>,
        place: &mut Place<'_>,
    ) -> io::Result<()> {
        let busy = |why: &str| encode_old(&old::failure(&ServiceError::Busy(why.into())));
        connection.set_answers(Answers {
            overdue: busy("the token did not answer in time"),
            busy: busy(NO_PLACE),
        });
        let served = self.served();
        let received = self.allowance(connection, &served).read_tedge1(stream);
        let request = received.and_then(|(bytes, share)| {
            let request = tedge1::Request::decode(&bytes)?;
            Ok((request, share))
        });
        let (request, _share) = match request {
            Ok(request) => request,
            Err(error) => {
                debug!(peer = %connection.peer, "closing a connection: {error}");
                let refusal = match error {
                    Unreceived::Unread(error) => old::not_understood(&error),
                    Unreceived::Refused(failure) => {
                        self.audit.refused_unread(&connection.peer, failure.code);
                        old::refused(&failure)
                    }
                };
                stream.send(&encode_old(&refusal))?;
                return stream.close();
            }
        };
        if !matches!(request, tedge1::Request::Ping) && !place.wait() {
            self.audit.refused_connection(&connection.peer, NO_PLACE);
            stream.send(&busy(NO_PLACE))?;
            return stream.close();
        }
        let deadline = old::deadline(&request, &self.timeouts);
        let entry = Entry::new(request.name());
        let Some(mut context) = self.begin(connection, deadline, entry) else {
            return Ok(());
        };
        let response = old::answer(&mut context, request);
        let is_listing = old::is_listing(&response);
        let answer = match response {
            tedge1::Response::Pong => tedge1::pong_with_advertisement().to_vec().into(),
            response => encode_old(&response),
        };
        let (answer, _share) = self.hold(&mut context, answer, is_listing, busy);
        self.respond(connection, stream, &context, &answer)
            .map(drop)
    }

    /// The work on a request begins; not where the connection was given up.
    fn begin<'c>(
        &'c self,
        connection: &'c Connection,
        deadline: Duration,
        entry: Entry,
    ) -> Option<RequestContext<'c>> {
        connection.begin(deadline).then(|| RequestContext {
            served: self.served(),
            process: &self.process,
            peer: &connection.peer,
            connection,
            began: Instant::now(),
            audit: entry,
        })
    }

    fn allowance<'a>(&'a self, connection: &'a Connection, served: &'a Served) -> Allowance<'a> {
        Allowance {
            peer: &connection.peer,
            policy: &served.policy,
            budget: &self.budget,
        }
    }

    /// The answer, when it may go, and its part of the memory. A listing is long, and where there is none left for it
    /// now, the client is told so.
    fn hold(
        &self,
        context: &mut RequestContext<'_>,
        mut answer: Body,
        is_listing: bool,
        busy: impl FnOnce(&str) -> Body,
    ) -> (Body, Share) {
        let mut share = self.budget.share(context.peer.uid);
        if is_listing && !share.grow_to(answer.len()) {
            let why = "long messages have taken all memory that is meant for them; try again";
            context.fail(&ServiceError::Busy(why.into()));
            answer = busy(why);
        }
        if is_listing || context.audit.has_failed() {
            self.hold_back(context.peer.uid);
        }
        (answer, share)
    }

    /// Sends the answer and writes the line of the audit. False if there is to be no further request: the reaper
    /// has answered, the connection was given up, the server stops.
    fn respond(
        &self,
        connection: &Connection,
        stream: &mut DeadlineStream<'_>,
        context: &RequestContext<'_>,
        answer: &[u8],
    ) -> io::Result<bool> {
        let took = context.began.elapsed();
        // The client waits for its answer, not for its line in the log. An operation that ended after the reaper
        // had answered has a line too.
        let sent = connection.finish().then(|| stream.send(answer));
        self.audit.write(&context.audit, &connection.peer, took);
        match sent {
            Some(sent) => sent.map(|()| connection.answered()),
            None => Ok(false),
        }
    }

    /// Waits until one more answer of this kind may go to this user.
    fn hold_back(&self, user: u32) {
        let mut slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = slow.count(user);
        drop(slow);
        thread::sleep(wait.min(MOST_DELAY));
    }

    fn set_served(&self, served: Arc<Served>) {
        *self.served.write().unwrap_or_else(PoisonError::into_inner) = served;
    }

    /// What holds at this moment.
    fn served(&self) -> Arc<Served> {
        self.served
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The place of a connection, which may still wait for it.
struct Place<'p> {
    /// `None` where there is a place for everybody.
    permit: Option<&'p mut Permit>,
    /// How long it may be idle, once it has a place.
    idle: Duration,
}

impl Place<'_> {
    fn is_there(&self) -> bool {
        let permit = self.permit.as_deref();
        permit.is_none_or(Permit::has_place)
    }

    fn wait(&mut self) -> bool {
        let permit = self.permit.as_deref_mut();
        permit.is_none_or(Permit::wait)
    }

    /// How long the next request may take to begin.
    fn idle(&self) -> Duration {
        match self.permit.as_deref() {
            Some(permit) if !permit.has_place() => permit.queue_timeout(),
            _ => self.idle,
        }
    }
}

/// Settles what is answered in place of the request's own answer, and reads the preamble.
fn read_preamble(connection: &Connection, stream: &mut DeadlineStream<'_>) -> Result<(), Error> {
    let overdue = "the token did not answer in time; the operation may still complete";
    let overdue = Response::Error(Failure::new(ErrorCode::Timeout, overdue));
    connection.set_answers(Answers {
        overdue: encode(&overdue),
        busy: encode(&Response::Error(no_place())),
    });
    let mut preamble = [0; 4];
    stream
        .read_exact(&mut preamble)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::NotProtocol1,
            _ => Error::Io(error),
        })?;
    frame::check_preamble(preamble)
}
