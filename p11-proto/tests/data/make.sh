#!/bin/sh
# Made the vectors of spki.rs and tedge1.rs with OpenSSL 3. Run it to see how; a new run makes new keys.
set -eu
cd "$(dirname "$0")"
keys=$(mktemp -d)
trap 'rm -r "$keys"' EXIT

new() { openssl genpkey -out "$keys/$1.pem" -quiet -algorithm "$2" ${3:+-pkeyopt "$3"}; }
spki() { openssl pkey -in "$keys/$1.pem" -pubout -outform DER -out "$1.der"; }

new rsa RSA rsa_keygen_bits:2048
new p256 EC ec_paramgen_curve:P-256
new p384 EC ec_paramgen_curve:P-384
new p521 EC ec_paramgen_curve:P-521
new ed25519 ED25519
for key in rsa p256 p384 p521 ed25519; do spki $key; done

# Keys that are refused.
new secp256k1 EC ec_paramgen_curve:secp256k1
new ed448 ED448
new rsa-pss RSA-PSS rsa_keygen_bits:1024
for key in secp256k1 ed448 rsa-pss; do spki $key; done
openssl ec -in "$keys/p256.pem" -pubout -conv_form compressed -outform DER -out p256-compressed.der
openssl ec -in "$keys/p256.pem" -pubout -param_enc explicit -outform DER -out p256-explicit.der

# Certificates: a request signed without extensions makes X.509 v1.
for key in rsa p256; do
    openssl req -new -key "$keys/$key.pem" -subj "/CN=$key" |
        openssl x509 -req -signkey "$keys/$key.pem" -days 36500 -outform DER -out $key-v1.crt
done
for key in p256 ed25519; do
    openssl req -x509 -new -key "$keys/$key.pem" -subj "/CN=$key" -days 36500 -outform DER -out $key-v3.crt
done

# The legacy PEMs of tedge1: the label of an SPKI around what an SPKI wraps. And one true SPKI.
legacy() {
    { echo "-----BEGIN PUBLIC KEY-----"; openssl base64; echo "-----END PUBLIC KEY-----"; } >"legacy-$1.pem"
}
openssl rsa -pubin -inform DER -in rsa.der -RSAPublicKey_out -outform DER | legacy rsa
tail -c 65 p256.der | legacy p256
tail -c 97 p384.der | legacy p384
tail -c 133 p521.der | legacy p521
tail -c 32 ed25519.der | legacy ed25519
openssl pkey -pubin -inform DER -in p256.der -pubout -out true-p256.pem

sha256sum rsa.der p256.der p384.der p521.der ed25519.der
