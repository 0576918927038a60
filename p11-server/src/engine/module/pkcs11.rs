//! Every call of the module but `C_Initialize` and `C_Finalize`, each noted in the table of calls. No other
//! file uses cryptoki's `Pkcs11` and `Session`.
//!
//! Whoever calls holds a [`Guard`], which says until when a call may wait for others.

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cryptoki::context::Function;
use cryptoki::error::{Error as Cryptoki, Rv, RvError};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, ObjectHandle};
use cryptoki::session::{SessionState, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use p11_proto::Pin;

use super::attributes::{Attributes, bytes_of};
use super::calls::Place;
use super::library_info::LibraryInfo;
use super::token_flags::{TokenFlags, text};
use super::{Guard, Module};
use crate::error::Error;

/// Objects of a class that are read of one token: more is a module that never ends.
const MOST_OBJECTS: usize = 100_000;

/// A session, which is closed by [`Session::close`] alone.
pub(crate) struct Session {
    inner: cryptoki::session::Session,
    module: Arc<Module>,
    place: Place,
    /// Until when the request that uses it waits for others.
    deadline: Cell<Instant>,
    /// Whether a call in it has failed: an operation may still be active.
    failed: Cell<bool>,
}

impl Guard<'_> {
    /// `C_GetInfo`
    pub fn library_info(&self) -> Result<LibraryInfo, Error> {
        let info = self.call("C_GetInfo", None, || self.module.pkcs11.get_library_info())?;
        let version = info.library_version();
        let info = LibraryInfo {
            manufacturer: text(info.manufacturer_id().as_bytes()),
            description: text(info.library_description().as_bytes()),
            version: (version.major(), version.minor()),
        };
        self.module.info.get_or_init(|| info.clone());
        Ok(info)
    }

    /// `C_GetSlotList`: the slots with a token, or all.
    pub fn slots(&self, with_token: bool) -> Result<Vec<u64>, Error> {
        self.call("C_GetSlotList", None, || match &self.module.raw {
            Some(raw) => raw
                .slots(with_token)?
                .into_iter()
                .map(|slot| Ok(Slot::try_from(slot)?.id()))
                .collect(),
            None => {
                let pkcs11 = &self.module.pkcs11;
                let slots = match with_token {
                    true => pkcs11.get_slots_with_token()?,
                    false => pkcs11.get_all_slots()?,
                };
                Ok(slots.iter().map(Slot::id).collect())
            }
        })
    }

    /// `C_GetSlotInfo`: description and manufacturer.
    pub fn slot_info(&self, place: &Place) -> Result<(String, String), Error> {
        let slot = slot(place)?;
        let info = self.call("C_GetSlotInfo", Some(place), || {
            self.module.pkcs11.get_slot_info(slot)
        })?;
        Ok((
            text(info.slot_description().as_bytes()),
            text(info.manufacturer_id().as_bytes()),
        ))
    }

    /// `C_GetTokenInfo`
    pub fn token_flags(&self, place: &Place) -> Result<TokenFlags, Error> {
        self.call("C_GetTokenInfo", Some(place), || match &self.module.raw {
            Some(raw) => Ok(TokenFlags::from(&raw.token_info(place.slot as _)?)),
            None => {
                let slot = Slot::try_from(place.slot)?;
                Ok(TokenFlags::of_cryptoki(
                    &self.module.pkcs11.get_token_info(slot)?,
                ))
            }
        })
    }

    /// `C_GetMechanismList`
    pub fn mechanisms(&self, place: &Place) -> Result<Vec<MechanismType>, Error> {
        self.call("C_GetMechanismList", Some(place), || {
            match &self.module.raw {
                Some(raw) => {
                    let all = raw.mechanisms(place.slot as _)?.into_iter();
                    Ok(all.filter_map(|how| how.try_into().ok()).collect())
                }
                None => self
                    .module
                    .pkcs11
                    .get_mechanism_list(Slot::try_from(place.slot)?),
            }
        })
    }

    /// `C_GetMechanismInfo`: the sizes of keys that a mechanism takes; `None` where it does not sign, or where
    /// the module lists and then disowns it.
    pub fn signing_sizes(
        &self,
        place: &Place,
        how: MechanismType,
    ) -> Result<Option<(usize, usize)>, Error> {
        let slot = slot(place)?;
        let ask = || self.module.pkcs11.get_mechanism_info(slot, how);
        let limit = self.module.timeouts.request;
        match self.call_raw("C_GetMechanismInfo", place, limit, ask)? {
            Ok(info) if info.sign() => Ok(Some((info.min_key_size(), info.max_key_size()))),
            Ok(_)
            | Err(Cryptoki::Pkcs11(RvError::MechanismInvalid | RvError::FunctionNotSupported, _)) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// `C_OpenSession`
    pub fn open_session(&self, place: &Place, read_write: bool) -> Result<Session, Error> {
        let slot = slot(place)?;
        let open = || match read_write {
            true => self.module.pkcs11.open_rw_session_no_drop(slot),
            false => self.module.pkcs11.open_ro_session_no_drop(slot),
        };
        Ok(Session {
            inner: self.call("C_OpenSession", Some(place), open)?,
            module: self.module.clone(),
            place: place.clone(),
            deadline: Cell::new(self.deadline),
            failed: Cell::new(false),
        })
    }

    /// `C_InitToken`, which may take minutes.
    pub fn init_token(
        &self,
        place: &Place,
        so_pin: &Pin,
        label: &str,
    ) -> Result<Result<(), Cryptoki>, Error> {
        let (slot, so_pin) = (slot(place)?, auth(so_pin));
        let init = || self.module.pkcs11.init_token(slot, &so_pin, label);
        let limit = self.module.timeouts.long_request;
        self.call_raw("C_InitToken", place, limit, init)
    }

    fn call<T>(
        &self,
        function: &'static str,
        place: Option<&Place>,
        call: impl FnOnce() -> Result<T, Cryptoki>,
    ) -> Result<T, Error> {
        let limit = self.module.timeouts.request;
        Ok(self
            .module
            .call(function, place, limit, self.deadline, call)??)
    }

    fn call_raw<T>(
        &self,
        function: &'static str,
        place: &Place,
        limit: Duration,
        call: impl FnOnce() -> Result<T, Cryptoki>,
    ) -> Result<Result<T, Cryptoki>, Error> {
        self.module
            .call(function, Some(place), limit, self.deadline, call)
    }
}

impl Module {
    /// A call that is in the table while it runs, alone if the module cannot lock. Waiting for that is no call.
    fn call<T>(
        &self,
        function: &'static str,
        place: Option<&Place>,
        limit: Duration,
        deadline: Instant,
        call: impl FnOnce() -> Result<T, Cryptoki>,
    ) -> Result<Result<T, Cryptoki>, Error> {
        let is_serial = self.is_serial.load(Ordering::Relaxed);
        let alone = is_serial.then(|| self.serial.lock_until(deadline));
        if let Some(None) = alone {
            let why = "the module is busy with another call; try again";
            return Err(Error::Timeout(why.into()));
        }
        let _running = self.calls.begin(function, place, limit);
        Ok(call())
    }
}

impl Session {
    /// Where it was opened.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// From now on it serves a request that waits until then.
    pub fn serve_until(&self, deadline: Instant) {
        self.deadline.set(deadline);
    }

    /// Whether a call in it has failed, so that it is not used again.
    pub fn has_failed(&self) -> bool {
        self.failed.get()
    }

    /// `C_CloseSession`. What it answers is of no use to anybody.
    ///
    /// # Errors
    /// The session itself, where its turn in a module that cannot lock does not come.
    pub fn close(self) -> Result<(), Session> {
        let (module, place) = (self.module.clone(), self.place.clone());
        let (limit, deadline) = (module.timeouts.request, self.deadline.get());
        let mut open = Some(self);
        let close = || open.take().map_or(Ok(()), |session| session.inner.close());
        let _ = module.call("C_CloseSession", Some(&place), limit, deadline, close);
        open.map_or(Ok(()), Err)
    }

    /// `C_GetSessionInfo`: whether the user is logged in.
    pub fn user_is_logged_in(&self) -> Result<bool, Error> {
        let info = self.call("C_GetSessionInfo", || self.inner.get_session_info())?;
        let state = info.session_state();
        Ok(matches!(state, SessionState::RoUser | SessionState::RwUser))
    }

    /// `C_Login`; without a PIN the token asks for it at its PIN pad.
    pub fn login(&self, user: UserType, pin: Option<&Pin>) -> Result<Result<(), Cryptoki>, Error> {
        let limit = match pin {
            Some(_) => self.module.timeouts.request,
            None => self.module.timeouts.pin_pad,
        };
        let pin = pin.map(auth);
        let login = || self.inner.login(user, pin.as_ref());
        let deadline = self.deadline.get();
        let done = self
            .module
            .call("C_Login", Some(&self.place), limit, deadline, login);
        if let Ok(Err(error)) = &done {
            // A PIN that is refused, or a login that is there, leaves the session as it was.
            let is_harmless = matches!(
                error,
                Cryptoki::Pkcs11(
                    RvError::PinIncorrect
                        | RvError::PinInvalid
                        | RvError::PinLenRange
                        | RvError::PinLocked
                        | RvError::UserAlreadyLoggedIn,
                    _
                )
            );
            self.failed.set(!is_harmless || self.has_failed());
        }
        done
    }

    /// `C_Logout`
    pub fn logout(&self) -> Result<(), Error> {
        self.call("C_Logout", || self.inner.logout())
    }

    /// `C_SetPIN`
    pub fn set_pin(&self, old: &Pin, new: &Pin) -> Result<Result<(), Cryptoki>, Error> {
        let set = || self.inner.set_pin(&auth(old), &auth(new));
        let limit = self.module.timeouts.request;
        self.call_raw("C_SetPIN", limit, set)
    }

    /// `C_InitPIN`
    pub fn init_pin(&self, new: &Pin) -> Result<Result<(), Cryptoki>, Error> {
        let init = || self.inner.init_pin(&auth(new));
        let limit = self.module.timeouts.request;
        self.call_raw("C_InitPIN", limit, init)
    }

    /// `C_CreateObject`
    pub fn create_object(&self, template: &[Attribute]) -> Result<(), Error> {
        self.call("C_CreateObject", || {
            self.inner.create_object(template).map(drop)
        })
    }

    /// `C_DestroyObject`
    pub fn destroy_object(&self, object: ObjectHandle) -> Result<(), Error> {
        self.call("C_DestroyObject", || self.inner.destroy_object(object))
    }

    /// `C_GenerateKeyPair`, which may take minutes: public and private key.
    pub fn generate_key_pair(
        &self,
        how: &Mechanism,
        public: &[Attribute],
        private: &[Attribute],
    ) -> Result<Result<(ObjectHandle, ObjectHandle), Cryptoki>, Error> {
        let limit = self.module.timeouts.long_request;
        let generate = || self.inner.generate_key_pair(how, public, private);
        self.call_raw("C_GenerateKeyPair", limit, generate)
    }

    /// `C_FindObjectsInit`, `C_FindObjects` as often as it finds some, `C_FindObjectsFinal`. `go_on` is asked
    /// before each call.
    pub fn find(
        &self,
        template: &[Attribute],
        go_on: &dyn Fn() -> Result<(), Error>,
    ) -> Result<Vec<ObjectHandle>, Error> {
        let Some(raw) = &self.module.raw else {
            let mut all = self.call("C_FindObjectsInit", || self.inner.iter_objects(template))?;
            let mut next = || all.next().transpose().map(Vec::from_iter);
            let found = collect(go_on, || self.call("C_FindObjects", &mut next));
            // cryptoki ends the search when the iterator goes.
            let end = || {
                drop(all);
                Ok(())
            };
            self.call("C_FindObjectsFinal", end)?;
            return found;
        };
        self.call("C_FindObjectsInit", || raw.find_init(&self.inner, template))?;
        let next = || self.call("C_FindObjects", || raw.find_next(&self.inner));
        let found = collect(go_on, next);
        let end = self.call("C_FindObjectsFinal", || raw.find_end(&self.inner));
        found.and_then(|found| end.map(|()| found))
    }

    /// `C_GetAttributeValue`: what the object tells of these attributes, each at most as long as is said.
    ///
    /// # Errors
    /// What the module returned, where that leaves nothing to believe. That some attributes are not there is
    /// no failure.
    pub fn attributes(
        &self,
        object: ObjectHandle,
        wanted: &[(AttributeType, usize)],
    ) -> Result<Attributes, Error> {
        let Some(raw) = &self.module.raw else {
            return self.attributes_by_cryptoki(object, wanted);
        };
        let ask = || raw.attributes(&self.inner, object, wanted);
        let (values, rv) = self.read("C_GetAttributeValue", ask)?;
        match rv {
            Rv::Ok
            | Rv::Error(
                RvError::AttributeSensitive
                | RvError::AttributeTypeInvalid
                | RvError::BufferTooSmall,
            ) => {}
            other => other.into_result(Function::GetAttributeValue)?,
        }
        let told = wanted.iter().zip(values);
        let told = told.filter_map(|((kind, _), value)| Some((*kind, value?)));
        Ok(told.collect())
    }

    fn attributes_by_cryptoki(
        &self,
        object: ObjectHandle,
        wanted: &[(AttributeType, usize)],
    ) -> Result<Attributes, Error> {
        let kinds: Vec<_> = wanted.iter().map(|(kind, _)| *kind).collect();
        let ask = || self.inner.get_attributes(object, &kinds);
        let told = self.read("C_GetAttributeValue", ask)?;
        let values = told
            .iter()
            .map(|told| (told.attribute_type(), bytes_of(told)));
        Ok(values.collect())
    }

    /// `C_SignInit` and `C_Sign`, with `log_in` between the two where the key wants that.
    pub fn sign(
        &self,
        how: &Mechanism,
        key: ObjectHandle,
        data: &[u8],
        expected: usize,
        log_in: Option<&dyn Fn() -> Result<(), Error>>,
    ) -> Result<Vec<u8>, Error> {
        match (&self.module.raw, log_in) {
            (Some(raw), log_in) => {
                self.call("C_SignInit", || raw.sign_init(&self.inner, how, key))?;
                if let Some(log_in) = log_in {
                    // The operation stays active where this fails.
                    log_in().inspect_err(|_| self.failed.set(true))?;
                }
                self.call("C_Sign", || raw.sign(&self.inner, data, expected))
            }
            (None, Some(_)) => Err(Error::NotSupported(
                "the key wants a login for each signature, which cannot be done through this \
                 PKCS#11 module; configure the token's own module instead of p11-kit's"
                    .into(),
            )),
            (None, None) => self.call("C_Sign", || self.inner.sign(how, key, data)),
        }
    }

    /// A call that leaves no operation active, whatever becomes of it.
    fn read<T>(
        &self,
        function: &'static str,
        call: impl FnOnce() -> Result<T, Cryptoki>,
    ) -> Result<T, Error> {
        let (limit, deadline) = (self.module.timeouts.request, self.deadline.get());
        let place = Some(&self.place);
        Ok(self.module.call(function, place, limit, deadline, call)??)
    }

    fn call<T>(
        &self,
        function: &'static str,
        call: impl FnOnce() -> Result<T, Cryptoki>,
    ) -> Result<T, Error> {
        Ok(self.call_raw(function, self.module.timeouts.request, call)??)
    }

    fn call_raw<T>(
        &self,
        function: &'static str,
        limit: Duration,
        call: impl FnOnce() -> Result<T, Cryptoki>,
    ) -> Result<Result<T, Cryptoki>, Error> {
        let (place, deadline) = (Some(&self.place), self.deadline.get());
        let done = self.module.call(function, place, limit, deadline, call);
        if !matches!(done, Ok(Ok(_))) {
            self.failed.set(true);
        }
        done
    }
}

/// All objects that a search finds, as long as `go_on` does and the module can be believed.
fn collect(
    go_on: &dyn Fn() -> Result<(), Error>,
    mut next: impl FnMut() -> Result<Vec<ObjectHandle>, Error>,
) -> Result<Vec<ObjectHandle>, Error> {
    let (mut found, mut known) = (Vec::new(), HashSet::new());
    loop {
        go_on()?;
        let more = next()?;
        if more.is_empty() {
            return Ok(found);
        }
        if !more.iter().all(|handle| known.insert(handle.handle())) {
            let why = "the PKCS#11 module lists an object twice";
            return Err(Error::BadAnswer(why.into()));
        }
        found.extend(more);
        if found.len() > MOST_OBJECTS {
            let why = format!("the PKCS#11 module lists over {MOST_OBJECTS} objects");
            return Err(Error::BadAnswer(why));
        }
    }
}

fn slot(place: &Place) -> Result<Slot, Error> {
    Ok(Slot::try_from(place.slot)?)
}

fn auth(pin: &Pin) -> AuthPin {
    AuthPin::new(pin.expose().into())
}
