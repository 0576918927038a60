#!/bin/sh
# Made the keys of these tests with OpenSSL 3: an RSA key, which ring does not generate, a key
# with an X.509 v1 certificate, which rcgen does not issue, and the certificate of a key on P-521. Run it to see how.
set -eu
cd "$(dirname "$0")"
pem=$(mktemp)
trap 'rm "$pem"' EXIT

openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 |
    openssl pkcs8 -topk8 -nocrypt -outform DER -out rsa.pk8

openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$pem"
openssl pkcs8 -topk8 -nocrypt -in "$pem" -outform DER -out v1.pk8
openssl req -new -key "$pem" -subj /CN=v1 |
    openssl x509 -req -signkey "$pem" -days 36500 -outform DER -out v1.crt

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-521 -noenc -keyout /dev/null \
    -subj /CN=p521 -days 36500 -outform DER -out p521.crt
