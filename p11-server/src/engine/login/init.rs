//! `C_InitToken` of a slot whose token is not initialised yet.

use std::time::Instant;

use cryptoki::error::{Error as Cryptoki, RvError};
use p11_proto::Pin;

use super::attempt::{Attempt, Subject};
use super::checks::{check_new_pin, is_of_new_pin, means_refused};
use super::states::{Owner, Role, Tries};
use super::texts::About;
use super::{Given, Logins, alone, texts};
use crate::engine::module::{Guard, TokenFlags};
use crate::engine::token::client::Client;
use crate::engine::token::id::TokenId;
use crate::engine::token::{SlotToken, Token};
use crate::error::Error;

impl Logins {
    /// `C_InitToken` of a slot whose token is not initialised yet. The caller has a guard of the module.
    ///
    /// # Errors
    /// As [`Logins::log_in`] for the security officer's PIN, [`Error::BadRequest`] for PINs that the token does not take.
    pub fn init_token(
        &self,
        guard: &Guard<'_>,
        client: &Client<'_>,
        slot: &SlotToken,
        (so, user): (&Pin, &Pin),
        label: &str,
    ) -> Result<(), Error> {
        let name = p11_uri::Uri::of_slot(&slot.info).to_string();
        let flags = guard.token_flags(&slot.place)?;
        if flags.token_initialized() {
            return Err(Error::Changed { token: name });
        }
        check_new_pin(&flags, Role::So, so, &name)?;
        check_new_pin(&flags, Role::User, user, &name)?;
        let id = TokenId::of(&flags);
        let in_tpm = id.is_tpm(&slot.info);
        let subject = self.subject_of(&id, &slot.place, in_tpm, Role::So);
        let lock = self.turn(&subject);
        let _alone = alone(&lock, &name, client)?;
        let owner = Owner::Client(client.access.user());
        let given = Given {
            pin: Some(so),
            owner,
        };
        let settings = self.settings();
        let about = About {
            token: name,
            in_tpm,
            role: Role::So,
            owner,
            settings: &settings,
            is_freed: self.guard.lock().is_freed(&subject),
            was_replaced: false,
        };
        let has_none = flags.so_pin_to_be_changed();
        // SoftHSM says of a token that has no PINs yet that the security officer's is locked and to be changed.
        let is_softhsms = has_none && flags.manufacturer.starts_with("SoftHSM");
        let tries = Tries::of(&flags, Role::So);
        let tries = Tries {
            locked: tries.locked && !is_softhsms,
            ..tries
        };
        let attempt = self.attempt_of(&subject, client, given, tries);
        self.decide(&subject, client, &attempt, &about)?;
        self.sending(&subject, attempt.pin, None);
        let sent = guard.init_token(&slot.place, so, label);
        match sent.inspect_err(|_| self.not_looked_at(&subject))? {
            Ok(()) => {
                self.change(|guard| guard.invalidate(&subject));
                Ok(())
            }
            Err(Cryptoki::Pkcs11(rv, _)) if has_none && is_of_new_pin(rv) => {
                self.not_looked_at(&subject);
                Err(texts::of_new_pin(rv, &flags, Role::So, &about.token))
            }
            Err(error) => {
                let left = || guard.token_flags(&slot.place).ok().filter(|_| !is_softhsms);
                Err(self.init_failed(&subject, &attempt, &about, left, error))
            }
        }
    }

    /// What `C_InitToken` has failed with: remembers what it says of the PIN, and answers what the client is told. A token
    /// that is not initialised has no PIN, but for some of which the maker has set one: those refuse others.
    fn init_failed(
        &self,
        subject: &Subject,
        attempt: &Attempt,
        about: &About<'_>,
        left: impl FnOnce() -> Option<TokenFlags>,
        error: Cryptoki,
    ) -> Error {
        match error {
            Cryptoki::Pkcs11(rv, _) if means_refused(rv) => {
                let (owner, now) = (attempt.owner, Instant::now());
                self.change(|guard| guard.refused(subject, owner, attempt.pin, now));
                about.refused(rv, left().as_ref())
            }
            error => {
                match error {
                    Cryptoki::Pkcs11(RvError::PinLocked, _) => {
                        self.change(|guard| guard.locked(subject, Instant::now()));
                    }
                    _ => self.not_looked_at(subject),
                }
                about.failed(error)
            }
        }
    }

    /// A token came into being by `C_InitToken`: what was known of one of its name is of no use.
    pub fn invalidate(&self, token: &Token) {
        let subject = self.subject(token, Role::User);
        self.change(|guard| guard.invalidate(&subject));
        self.replaced.lock().remove(token.id());
    }
}
