//! The shortest URI that means one token or key among all that there are.

use p11_uri::{ObjectInfo, ObjectType, TokenInfo, Uri};

/// What a URI says of a token.
pub fn info(uri: &Uri, slot: u64) -> TokenInfo {
    let told = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let mut info = TokenInfo::default();
    info.label = told(uri.token());
    info.serial = told(uri.serial());
    info.manufacturer = told(uri.manufacturer());
    info.model = told(uri.model());
    info.slot_id = slot;
    info.is_ambiguous = uri.slot_id().is_some();
    info
}

/// As little of a token's facts as no other token shares.
pub fn shortest(token: &TokenInfo, all: &[TokenInfo]) -> TokenInfo {
    let with = |label: bool, serial: bool| {
        let mut short = TokenInfo::default();
        if label {
            short.label.clone_from(&token.label);
        }
        if serial {
            short.serial.clone_from(&token.serial);
        }
        short
    };
    let mut ways = [with(true, false), with(true, true), with(false, true)].into_iter();
    let is_enough = |short: &TokenInfo| {
        let uri = Uri::of_token(short);
        uri.names_token() && all.iter().filter(|other| uri.matches_token(other)).count() == 1
    };
    ways.find(is_enough).unwrap_or_else(|| token.clone())
}

/// The URI of a key with this label and id, or of the token where it has neither.
pub fn short_uri(token: &TokenInfo, label: &str, id: &[u8]) -> String {
    if label.is_empty() && id.is_empty() {
        return Uri::of_token(token).to_string();
    }
    let object = ObjectInfo::new(ObjectType::Private, label, id);
    Uri::of_object(token, &object).without_type().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(label: &str, serial: &str) -> TokenInfo {
        let mut info = TokenInfo::default();
        (info.label, info.serial) = (label.to_owned(), serial.to_owned());
        info.model = "m".to_owned();
        info
    }

    #[test]
    fn a_token_is_named_by_as_little_as_tells_it_from_others() {
        let all = [
            token("a", "1"),
            token("b", "2"),
            token("b", "3"),
            token("", "4"),
            token("", ""),
        ];
        let short = |token: &TokenInfo| Uri::of_token(&shortest(token, &all)).to_string();
        let named: Vec<_> = all.iter().map(short).collect();
        assert_eq!(
            named,
            [
                "pkcs11:token=a",
                "pkcs11:serial=2;token=b",
                "pkcs11:serial=3;token=b",
                "pkcs11:serial=4",
                "pkcs11:model=m"
            ]
        );
    }
}
