//! What to do where a peer takes no signature scheme that a key can make.

use rustls::SignatureScheme;

const PKCS1: [SignatureScheme; 3] = [
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
];

const PSS: [SignatureScheme; 3] = [
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
];

const EC: [SignatureScheme; 2] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
];

/// What helps, to be put behind the two lists; nothing where only a key of another kind does.
pub(crate) fn advice(offered: &[SignatureScheme], available: &[SignatureScheme]) -> &'static str {
    let can = |schemes: &[SignatureScheme]| available.iter().any(|one| schemes.contains(one));
    let offers = |schemes: &[SignatureScheme]| offered.iter().any(|one| schemes.contains(one));
    if available.is_empty() {
        "; the token can do nothing with this key that TLS knows"
    } else if can(&PKCS1) && !can(&PSS) && offers(&PSS) {
        "; the token has no RSA-PSS for it (CKM_RSA_PKCS_PSS), which TLS 1.3 asks for: only TLS 1.2 will do, or an EC key"
    } else if can(&[SignatureScheme::ECDSA_NISTP521_SHA512]) && offers(&EC) {
        "; P-521 is what few peers take, in TLS 1.2 above all, and none whose rustls uses ring: make the key on P-256 or P-384"
    } else if can(&[SignatureScheme::ED25519]) && offers(&EC) {
        "; Ed25519 is what some peers do not take: make the key on P-256 or P-384"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use rustls::SignatureScheme as Tls;

    use super::*;

    #[test]
    fn only_what_helps_is_advised() {
        let pkcs1 = [Tls::RSA_PKCS1_SHA256];
        let rsa = [Tls::RSA_PSS_SHA256, Tls::RSA_PKCS1_SHA256];
        let ec = [Tls::ECDSA_NISTP256_SHA256];
        for (offered, available, part) in [
            (&[Tls::RSA_PSS_SHA512][..], &pkcs1[..], "no RSA-PSS"),
            (&ec, &[Tls::ECDSA_NISTP521_SHA512], "P-521"),
            (&ec, &[Tls::ED25519], "Ed25519"),
            (&ec, &[], "nothing"),
        ] {
            assert!(advice(offered, available).contains(part), "{part}");
        }
        for (offered, available) in [
            (&ec[..], &rsa[..]),
            (&ec, &pkcs1),
            (&[Tls::RSA_PSS_SHA512], &rsa),
            (&rsa, &[Tls::ECDSA_NISTP521_SHA512]),
            (&rsa, &[Tls::ED25519]),
            (&rsa, &ec),
        ] {
            assert_eq!(advice(offered, available), "", "{offered:?} {available:?}");
        }
    }
}
