//! The tokens in the slots of the module.
//!
//! One scan of the slots at a time, in a thread of its own, serves all who wait. A slot whose call does not
//! return keeps what was known of it, and the next scan goes round it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use p11_uri::{TokenInfo, Uri};
use parking_lot::Condvar;
use tracing::warn;

use super::client::Client;
use super::id::TokenId;
use super::lookup::Slots;
use super::{SlotToken, Token};
use crate::engine::lock::{Mutex, Rank};
use crate::engine::module::{Guard, LibraryInfo, Module, Place, TokenFlags};
use crate::error::Error;

/// How often who waits for a scan looks whether it goes on.
const LOOK: Duration = Duration::from_millis(200);

/// Tokens that are kept though they are in no slot.
const MOST_ABSENT: usize = 256;

/// The tokens that were ever seen, so that one that comes back is known again.
pub(crate) struct Registry {
    module: Arc<Module>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    known: HashMap<TokenId, Arc<Token>>,
    slots: HashMap<u64, SlotToken>,
    /// Slots whose call has not returned, by the number of their scan.
    hanging: HashMap<u64, u64>,
    /// What was said of a slot already: once is enough.
    said: HashSet<(u64, String)>,
    /// What was wrong when the slots were listed last.
    trouble: Option<String>,
    running: Option<Scan>,
    started: u64,
    done: u64,
    result: Option<Result<Arc<Slots>, Error>>,
}

struct Scan {
    number: u64,
    /// The slot that it asks at this moment, and since when.
    at: Option<(u64, Instant)>,
}

impl Registry {
    /// No token is known yet.
    pub fn new(module: Arc<Module>) -> Arc<Registry> {
        Arc::new(Registry {
            module,
            state: Mutex::new(Rank::Registry, State::default()),
            changed: Condvar::new(),
        })
    }

    /// Lists the slots, by a scan that begins now or later.
    ///
    /// # Errors
    /// What `C_GetSlotList` said, [`Error::Timeout`]. A slot that fails is skipped with a warning.
    pub fn scan(self: &Arc<Self>, client: &Client<'_>) -> Result<Arc<Slots>, Error> {
        let mut state = self.state.lock();
        let expected = state.started + 1;
        loop {
            if state.done >= expected
                && let Some(result) = &state.result
            {
                return result.clone();
            }
            let slow = self.module.timeouts().slow_slot;
            match &state.running {
                None => {
                    state.started += 1;
                    let number = state.started;
                    state.running = Some(Scan { number, at: None });
                    let registry = self.clone();
                    let run = move || registry.run(number);
                    let spawned = thread::Builder::new().name("slots".into()).spawn(run);
                    if let Err(error) = spawned {
                        state.running = None;
                        let why = format!("no thread to list the slots: {error}");
                        return Err(Error::Internal(why));
                    }
                }
                Some(Scan {
                    number,
                    at: Some((slot, since)),
                }) if since.elapsed() > slow => {
                    let (slot, number) = (*slot, *number);
                    state.hanging.insert(slot, number);
                    state.running = None;
                    continue;
                }
                Some(_) => {}
            }
            let until = client.deadline.min(Instant::now() + LOOK);
            if !state.wait_until(&self.changed, until) {
                drop(state);
                client.still_waits()?;
                state = self.state.lock();
            }
        }
    }

    /// The one token that a URI means, of those that the caller may use. Errors name only those that it may know of.
    ///
    /// # Errors
    /// [`Error::TokenNotFound`], [`Error::NotAllowed`], [`Error::AmbiguousToken`], and what [`Registry::scan`] fails with.
    pub fn one(self: &Arc<Self>, client: &Client<'_>, uri: &Uri) -> Result<Arc<Token>, Error> {
        self.scan(client)?.one(uri, client.access)
    }

    /// The tokens that were ever seen.
    pub fn known(&self) -> Vec<Arc<Token>> {
        self.state.lock().known.values().cloned().collect()
    }

    /// What the slots held when they were listed last, if that is known.
    fn last(&self) -> Option<Result<Arc<Slots>, Error>> {
        self.state.lock().result.clone()
    }

    /// What was wrong where no token could be used when the slots were listed last.
    pub fn trouble(&self) -> Option<String> {
        let trouble = self.state.lock().trouble.clone();
        trouble.map(|trouble| format!("when slots were listed last, {trouble}"))
    }

    /// Whether there was no token that could be used when they were listed last; `None` where they never were.
    pub fn has_no_token(&self) -> Option<bool> {
        let last = self.last()?;
        Some(last.is_ok_and(|slots| slots.has_no_token()))
    }

    /// After a reload of the module: nothing is open on any token.
    pub fn reset_tokens(&self) {
        for token in self.known() {
            token.reset();
        }
    }

    /// One scan, in a thread of its own.
    fn run(&self, number: u64) {
        let _ended = EndOfScan(self, number);
        let deadline = Instant::now() + self.module.timeouts().request;
        let listed = match self.module.guard(deadline) {
            Ok(guard) => self.list(&guard, number),
            Err(error) => Err(error),
        };
        let mut state = self.state.lock();
        if !state.is_run_by(number) {
            return;
        }
        let result = listed.map(|mut slots| {
            mark_ambiguous(&mut slots.all);
            let by_slot = |slot: &SlotToken| (slot.place.slot, slot.clone());
            state.slots = slots.all.iter().map(by_slot).collect();
            slots.tokens = state.tokens(&slots.all);
            Arc::new(slots)
        });
        // While the module is down, it says so itself.
        if let Err(error @ Error::Module { .. }) = &result {
            state.trouble = Some(error.to_string());
        }
        state.done = number;
        state.result = Some(result);
    }

    /// What the slots hold, but for which of it was known before.
    fn list(&self, module: &Guard<'_>, number: u64) -> Result<Slots, Error> {
        let library = module.library_info()?;
        let mut found = Slots::default();
        let slots = module.slots(true)?;
        if slots.is_empty() {
            found.empty = self.empty_slots(module)?;
        }
        for slot in slots {
            let slow = self.module.timeouts().slow_slot;
            let busy = self.module.busy_slot(slot, slow);
            let mut state = self.state.lock();
            if !state.is_run_by(number) {
                return Ok(found);
            }
            if busy.is_some() || state.hanging.contains_key(&slot) {
                found.keep(&mut state, slot, busy.unwrap_or("a call"));
                continue;
            }
            let known = state.slots.get(&slot).cloned();
            if let Some(scan) = &mut state.running {
                scan.at = Some((slot, Instant::now()));
            }
            drop(state);
            let place = Place {
                slot,
                name: known.map_or_else(|| format!("slot {slot}").into(), |known| known.place.name),
            };
            let asked = module.slot_info(&place);
            let asked = asked.and_then(|slot| Ok((slot, module.token_flags(&place)?)));
            let mut state = self.state.lock();
            if let Some(scan) = &mut state.running
                && scan.number == number
            {
                scan.at = None;
            }
            match asked {
                Ok((texts, flags)) => {
                    state
                        .said
                        .retain(|(of, _)| *of != slot || !flags.token_initialized());
                    found.all.push(SlotToken::new(slot, texts, flags, &library));
                }
                Err(error) => {
                    state.say(slot, format!("it fails: {error}"));
                    found.failing.push(format!("slot {slot} fails: {error}"));
                }
            }
        }
        self.look_beside(&mut found);
        Ok(found)
    }

    /// The slots where none has a token, by what they say of themselves.
    fn empty_slots(&self, module: &Guard<'_>) -> Result<Vec<String>, Error> {
        let named = module.slots(false)?.into_iter().map(|slot| {
            let name = format!("slot {slot}");
            let place = Place {
                slot,
                name: name.as_str().into(),
            };
            match module.slot_info(&place) {
                Ok((description, _)) => format!("{description:?}"),
                Err(error) => format!("{name}, which fails: {error}"),
            }
        });
        Ok(named.collect())
    }

    /// Where no token can be used: looks for the reason, and warns of it once.
    fn look_beside(&self, found: &mut Slots) {
        found.needs = self.module.needs();
        let mut slots = found.all.iter();
        if !slots.any(|slot| slot.flags.token_initialized()) {
            found.obstacle = found.needs.obstacle();
        }
        let trouble = found.trouble();
        let mut state = self.state.lock();
        if let Some(trouble) = &trouble
            && state.trouble.as_ref() != Some(trouble)
        {
            warn!("no token is there: {trouble}");
        }
        state.trouble = trouble;
    }
}

/// Lets the next scan begin when this one has ended, by a panic too.
struct EndOfScan<'r>(&'r Registry, u64);

impl Drop for EndOfScan<'_> {
    fn drop(&mut self) {
        let EndOfScan(registry, number) = self;
        let mut state = registry.state.lock();
        state.hanging.retain(|_, scan| scan != number);
        if state.is_run_by(*number) {
            state.running = None;
        }
        registry.changed.notify_all();
    }
}

impl SlotToken {
    /// A token in a slot, whose description and manufacturer are these.
    fn new(
        slot: u64,
        (description, manufacturer): (String, String),
        flags: TokenFlags,
        library: &LibraryInfo,
    ) -> SlotToken {
        let mut info = TokenInfo::default();
        info.label = flags.label.clone();
        info.manufacturer = flags.manufacturer.clone();
        info.serial = flags.serial.clone();
        info.model = flags.model.clone();
        info.slot_id = slot;
        info.slot_description = description;
        info.slot_manufacturer = manufacturer;
        info.library_manufacturer = library.manufacturer.clone();
        info.library_description = library.description.clone();
        info.library_version = library.version;
        let name = match flags.token_initialized() {
            true => Uri::of_token(&info),
            false => Uri::of_slot(&info),
        };
        SlotToken {
            place: Place {
                slot,
                name: name.to_string().into(),
            },
            info: Arc::new(info),
            flags: Arc::new(flags),
        }
    }
}

impl Slots {
    /// A call on a slot does not return: what was known of it is kept.
    fn keep(&mut self, state: &mut State, slot: u64, function: &str) {
        let what = format!("{function} does not return; what was known of it is kept");
        state.say(slot, what);
        match state.slots.get(&slot) {
            Some(known) => self.all.push(known.clone()),
            None => self
                .hanging
                .push(format!("{function} on slot {slot} does not return")),
        }
    }
}

/// Tokens that say the same of themselves are told apart by their slots, and so are those that leave something out which
/// others say: what is left out of a URI may be anything.
fn mark_ambiguous(all: &mut [SlotToken]) {
    let made = all.iter().filter(|slot| slot.flags.token_initialized());
    let infos: Vec<_> = made.clone().map(|slot| slot.info.clone()).collect();
    let mut count = HashMap::<TokenId, usize>::new();
    for slot in made {
        *count.entry(TokenId::of(&slot.flags)).or_default() += 1;
    }
    for slot in all.iter_mut().filter(|slot| slot.flags.token_initialized()) {
        let id = TokenId::of(&slot.flags);
        let uri = Uri::of_token(&slot.info);
        let is_named = |info: &&Arc<TokenInfo>| uri.matches_token(info);
        let means_others = || id.leaves_out() && infos.iter().filter(is_named).count() > 1;
        if count.get(&id).is_some_and(|count| *count > 1) || means_others() {
            let info = Arc::make_mut(&mut slot.info);
            info.is_ambiguous = true;
            slot.place.name = Uri::of_token(info).to_string().into();
        }
    }
}

impl State {
    fn is_run_by(&self, number: u64) -> bool {
        self.running
            .as_ref()
            .is_some_and(|scan| scan.number == number)
    }

    /// Warns of a slot, the first time.
    fn say(&mut self, slot: u64, what: String) {
        if !self.said.contains(&(slot, what.clone())) {
            warn!(slot, "skipping a slot: {what}");
            self.said.insert((slot, what));
        }
    }

    /// The tokens in these slots. Those that were known and are in none of them are absent.
    fn tokens(&mut self, all: &[SlotToken]) -> Vec<Arc<Token>> {
        let mut found = Vec::new();
        for slot in all {
            if slot.flags.token_initialized() {
                found.push((TokenId::of(&slot.flags), slot));
            } else if self
                .said
                .insert((slot.place.slot, "it is not initialised".into()))
            {
                warn!(
                    slot = slot.place.slot,
                    "skipping a token that is not initialised"
                );
            }
        }
        found.sort_unstable_by(|(a, slot_a), (b, slot_b)| {
            (a, slot_a.place.slot).cmp(&(b, slot_b.place.slot))
        });
        let mut tokens: Vec<Arc<Token>> = Vec::with_capacity(found.len());
        for (mut id, slot) in found {
            while tokens.iter().any(|token| *token.id() == id) {
                id.ordinal += 1;
            }
            let known = self.known.get(&id);
            // One that has become ambiguous has another name.
            let token =
                match known.filter(|token| token.info().is_ambiguous == slot.info.is_ambiguous) {
                    Some(token) => {
                        token.set_present(slot.clone());
                        token.clone()
                    }
                    None => {
                        let token = Arc::new(Token::new(id.clone(), slot.clone()));
                        self.known.insert(id, token.clone());
                        token
                    }
                };
            tokens.push(token);
        }
        let is_there = |id: &TokenId| tokens.iter().any(|token| token.id() == id);
        let absent = self.known.iter().filter(|(id, _)| !is_there(id));
        absent.for_each(|(_, token)| token.set_absent());
        if self.known.len() > tokens.len() + MOST_ABSENT {
            self.known.retain(|id, _| is_there(id));
        }
        tokens
    }
}

#[cfg(test)]
mod tests {
    use cryptoki_sys::{CK_TOKEN_INFO, CKF_TOKEN_INITIALIZED};

    use super::*;

    /// A token of this label in this slot, which tells nothing else.
    fn token(slot: u64, label: u8) -> SlotToken {
        let mut info = CK_TOKEN_INFO {
            label: [b' '; 32],
            flags: CKF_TOKEN_INITIALIZED,
            ..CK_TOKEN_INFO::default()
        };
        info.label[0] = label;
        let library = LibraryInfo {
            manufacturer: String::new(),
            description: String::new(),
            version: (1, 0),
        };
        let texts = (String::new(), String::new());
        SlotToken::new(slot, texts, TokenFlags::from(&info), &library)
    }

    #[test]
    fn tokens_that_say_the_same_are_named_by_their_slots_as_long_as_there_are_several() {
        let names = |all: &[SlotToken], state: &mut State| -> Vec<String> {
            let mut all = all.to_vec();
            mark_ambiguous(&mut all);
            let tokens = state.tokens(&all);
            tokens.iter().map(|token| token.name().into()).collect()
        };
        let all = [token(3, b'a'), token(5, b'a'), token(7, b'b')];
        let mut state = State::default();
        let ambiguous = [
            "pkcs11:token=a;slot-id=3",
            "pkcs11:token=a;slot-id=5",
            "pkcs11:token=b",
        ];
        assert_eq!(names(&all, &mut state), ambiguous);
        assert_eq!(
            names(&all[1..], &mut state),
            ["pkcs11:token=a", "pkcs11:token=b"]
        );
        assert_eq!(names(&all, &mut state), ambiguous);
    }
}
