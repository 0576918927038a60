//! What the functions of PKCS#11 do with a device; `Err` is what they return.

use cryptoki_sys::*;

use super::{Device, Event, Role, Session, Token, public_key};

/// The only object of each token, a private key.
const KEY: CK_OBJECT_HANDLE = 1;

impl Device {
    pub(crate) fn initialize(&mut self) -> Result<(), CK_RV> {
        if std::mem::take(&mut self.is_missed) {
            self.events.push(Event::Reloaded);
        }
        match std::mem::replace(&mut self.is_initialized, true) {
            true => Err(CKR_CRYPTOKI_ALREADY_INITIALIZED),
            false => Ok(()),
        }
    }

    pub(crate) fn finalize(&mut self) -> Result<(), CK_RV> {
        self.forget_initialization();
        Ok(())
    }

    /// Whether calls are answered at all.
    pub(crate) fn check_alive(&mut self) -> Result<(), CK_RV> {
        self.is_missed |= !self.is_initialized;
        match (self.is_dead, self.is_initialized) {
            (true, _) => Err(CKR_DEVICE_REMOVED),
            (_, false) => Err(CKR_CRYPTOKI_NOT_INITIALIZED),
            (false, true) => Ok(()),
        }
    }

    fn index(&self, slot: CK_SLOT_ID) -> Result<usize, CK_RV> {
        let index = usize::try_from(slot).map_err(|_| CKR_SLOT_ID_INVALID)?;
        match index < self.tokens.len() {
            true => Ok(index),
            false => Err(CKR_SLOT_ID_INVALID),
        }
    }

    pub(crate) fn token_info(&self, slot: CK_SLOT_ID) -> Result<CK_TOKEN_INFO, CK_RV> {
        let index = self.index(slot)?;
        let token = &self.tokens[index];
        let mut flags = CKF_LOGIN_REQUIRED;
        let has = |has: bool, flag: CK_FLAGS| if has { flag } else { 0 };
        flags |= has(token.is_made, CKF_TOKEN_INITIALIZED);
        flags |= has(token.has_user_pin, CKF_USER_PIN_INITIALIZED);
        flags |= has(token.has_pad, CKF_PROTECTED_AUTHENTICATION_PATH);
        for (role, [low, last, locked]) in [
            (
                Role::User,
                [
                    CKF_USER_PIN_COUNT_LOW,
                    CKF_USER_PIN_FINAL_TRY,
                    CKF_USER_PIN_LOCKED,
                ],
            ),
            (
                Role::So,
                [
                    CKF_SO_PIN_COUNT_LOW,
                    CKF_SO_PIN_FINAL_TRY,
                    CKF_SO_PIN_LOCKED,
                ],
            ),
        ] {
            let left = self.left(index, role);
            flags |= has(self.has_flags && left < self.tries, low);
            flags |= has(self.has_flags && left == 1, last);
            flags |= has(self.has_flags && left == 0, locked);
        }
        let (model, serial) = match self.in_tpm {
            true => ("TPM 2.0", "0".repeat(16)),
            false => ("card", format!("{index:016}")),
        };
        let label = match token.is_made {
            true => format!("t{index}"),
            false => String::new(),
        };
        Ok(CK_TOKEN_INFO {
            label: padded(&label),
            manufacturerID: padded("model"),
            model: padded(model),
            serialNumber: padded(&serial),
            flags,
            ulMinPinLen: 4,
            ulMaxPinLen: 8,
            ..CK_TOKEN_INFO::default()
        })
    }

    pub(crate) fn init_token(&mut self, slot: CK_SLOT_ID, pin: &[u8]) -> Result<(), CK_RV> {
        let index = self.index(slot)?;
        self.check(index, Role::So, number(pin)?, false)?;
        self.reinsert(index);
        let token = &mut self.tokens[index];
        (token.is_made, token.has_user_pin) = (true, false);
        token.accepted = [None, None];
        self.events.push(Event::Reset(index));
        Ok(())
    }

    pub(crate) fn open(
        &mut self,
        slot: CK_SLOT_ID,
        flags: CK_FLAGS,
    ) -> Result<CK_SESSION_HANDLE, CK_RV> {
        let session = Session {
            token: self.index(slot)?,
            is_read_write: flags & CKF_RW_SESSION != 0,
            found: Vec::new(),
            signing: None,
        };
        self.last_session += 1;
        self.sessions.insert(self.last_session, session);
        Ok(self.last_session)
    }

    pub(crate) fn close(&mut self, handle: CK_SESSION_HANDLE) -> Result<(), CK_RV> {
        let closed = self.sessions.remove(&handle);
        let index = closed.ok_or(CKR_SESSION_HANDLE_INVALID)?.token;
        if !self.sessions.values().any(|other| other.token == index) {
            self.tokens[index].log_out();
        }
        Ok(())
    }

    fn session(&mut self, handle: CK_SESSION_HANDLE) -> Result<(&mut Session, &mut Token), CK_RV> {
        let session = self.sessions.get_mut(&handle);
        let session = session.ok_or(CKR_SESSION_HANDLE_INVALID)?;
        let token = &mut self.tokens[session.token];
        Ok((session, token))
    }

    pub(crate) fn session_info(
        &mut self,
        handle: CK_SESSION_HANDLE,
    ) -> Result<CK_SESSION_INFO, CK_RV> {
        let (session, token) = self.session(handle)?;
        let state = match (session.is_read_write, token.logged_in) {
            (false, None) => CKS_RO_PUBLIC_SESSION,
            (false, Some(_)) => CKS_RO_USER_FUNCTIONS,
            (true, None) => CKS_RW_PUBLIC_SESSION,
            (true, Some(Role::User)) => CKS_RW_USER_FUNCTIONS,
            (true, Some(Role::So)) => CKS_RW_SO_FUNCTIONS,
        };
        Ok(CK_SESSION_INFO {
            slotID: session.token as CK_SLOT_ID,
            state,
            ..CK_SESSION_INFO::default()
        })
    }

    pub(crate) fn login(
        &mut self,
        handle: CK_SESSION_HANDLE,
        user: CK_USER_TYPE,
        pin: Option<&[u8]>,
    ) -> Result<(), CK_RV> {
        let (session, token) = self.session(handle)?;
        let index = session.token;
        let role = match user {
            CKU_SO => Role::So,
            _ => Role::User,
        };
        let is_for_signature = user == CKU_CONTEXT_SPECIFIC;
        if is_for_signature && session.signing != Some(true) {
            return Err(CKR_OPERATION_NOT_INITIALIZED);
        }
        match token.logged_in {
            Some(other) if other != role => return Err(CKR_USER_ANOTHER_ALREADY_LOGGED_IN),
            Some(_) if !is_for_signature => return Err(CKR_USER_ALREADY_LOGGED_IN),
            _ => {}
        }
        let number = match (token.has_pad && role == Role::User, pin) {
            (true, None) => token.typed.ok_or(CKR_FUNCTION_CANCELED)?,
            (false, Some(pin)) => number(pin)?,
            _ => return Err(CKR_ARGUMENTS_BAD),
        };
        let readers = |other: &Session| other.token == index && !other.is_read_write;
        if role == Role::So && self.sessions.values().any(readers) {
            return Err(CKR_SESSION_READ_ONLY_EXISTS);
        }
        self.check(index, role, number, is_for_signature)?;
        let (session, token) = self.session(handle)?;
        match is_for_signature {
            true => session.signing = Some(false),
            false => token.logged_in = Some(role),
        }
        Ok(())
    }

    pub(crate) fn logout(&mut self, handle: CK_SESSION_HANDLE) -> Result<(), CK_RV> {
        let (_, token) = self.session(handle)?;
        token.logged_in.take().ok_or(CKR_USER_NOT_LOGGED_IN)?;
        Ok(())
    }

    pub(crate) fn set_pin(
        &mut self,
        handle: CK_SESSION_HANDLE,
        old: &[u8],
        new: &[u8],
    ) -> Result<(), CK_RV> {
        let index = self.session(handle)?.0.token;
        let (old, new) = (number(old)?, number(new)?);
        self.check(index, Role::User, old, false)?;
        self.set_right(index, new);
        let token = index;
        self.events.push(Event::Changed { token, old, new });
        Ok(())
    }

    pub(crate) fn init_pin(&mut self, handle: CK_SESSION_HANDLE, new: &[u8]) -> Result<(), CK_RV> {
        let (session, token) = self.session(handle)?;
        let index = session.token;
        if token.logged_in != Some(Role::So) {
            return Err(CKR_USER_NOT_LOGGED_IN);
        }
        token.has_user_pin = true;
        // Nobody has to believe of it that it was right before.
        token.accepted = [None, None];
        self.give_back(index, Role::User);
        self.set_right(index, number(new)?);
        self.events.push(Event::Reset(index));
        Ok(())
    }

    fn set_right(&mut self, index: usize, right: u8) {
        let token = &mut self.tokens[index];
        token.right = right;
        token.accepted[Role::User as usize] = Some(right);
    }

    /// A search for the private key, which shows without a login, so that it costs fewer calls, or for what is not there.
    pub(crate) fn find(
        &mut self,
        handle: CK_SESSION_HANDLE,
        class: Option<CK_OBJECT_CLASS>,
    ) -> Result<(), CK_RV> {
        let (session, token) = self.session(handle)?;
        session.found = match token.is_made && class == Some(CKO_PRIVATE_KEY) {
            true => vec![KEY],
            false => Vec::new(),
        };
        Ok(())
    }

    pub(crate) fn found(
        &mut self,
        handle: CK_SESSION_HANDLE,
    ) -> Result<Vec<CK_OBJECT_HANDLE>, CK_RV> {
        Ok(std::mem::take(&mut self.session(handle)?.0.found))
    }

    /// The bytes of an attribute of a key, `None` where it has none.
    pub(crate) fn attribute(
        &mut self,
        handle: CK_SESSION_HANDLE,
        key: CK_OBJECT_HANDLE,
        kind: CK_ATTRIBUTE_TYPE,
    ) -> Result<Option<Vec<u8>>, CK_RV> {
        let (_, token) = self.session(handle)?;
        if key != KEY {
            return Err(CKR_OBJECT_HANDLE_INVALID);
        }
        Ok(match kind {
            CKA_CLASS => Some(CKO_PRIVATE_KEY.to_ne_bytes().to_vec()),
            CKA_KEY_TYPE => Some(CKK_EC.to_ne_bytes().to_vec()),
            CKA_LABEL => Some(b"key".to_vec()),
            CKA_PRIVATE | CKA_SIGN | CKA_SENSITIVE => Some(vec![CK_TRUE]),
            CKA_ALWAYS_AUTHENTICATE => Some(vec![token.always_authenticate.into()]),
            CKA_PUBLIC_KEY_INFO => Some(public_key().spki().to_vec()),
            _ => None,
        })
    }

    pub(crate) fn sign_init(
        &mut self,
        handle: CK_SESSION_HANDLE,
        key: CK_OBJECT_HANDLE,
    ) -> Result<(), CK_RV> {
        let (session, token) = self.session(handle)?;
        if token.logged_in != Some(Role::User) {
            return Err(CKR_USER_NOT_LOGGED_IN);
        }
        if key != KEY {
            return Err(CKR_KEY_HANDLE_INVALID);
        }
        match session.signing.replace(token.always_authenticate) {
            Some(_) => Err(CKR_OPERATION_ACTIVE),
            None => Ok(()),
        }
    }

    pub(crate) fn sign(&mut self, handle: CK_SESSION_HANDLE) -> Result<[u8; 64], CK_RV> {
        let (session, _) = self.session(handle)?;
        match session.signing.take() {
            Some(false) => Ok([1; 64]),
            Some(true) => Err(CKR_USER_NOT_LOGGED_IN),
            None => Err(CKR_OPERATION_NOT_INITIALIZED),
        }
    }
}

/// The number of a PIN. Others do not come from the tests.
fn number(pin: &[u8]) -> Result<u8, CK_RV> {
    let text = str::from_utf8(pin).map_err(|_| CKR_ARGUMENTS_BAD)?;
    text.parse().map_err(|_| CKR_ARGUMENTS_BAD)
}

/// A text as the structures have it (PKCS#11 2.40, 3).
fn padded<const LENGTH: usize>(text: &str) -> [u8; LENGTH] {
    let mut bytes = text.bytes();
    std::array::from_fn(|_| bytes.next().unwrap_or(b' '))
}
