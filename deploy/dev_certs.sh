#!/bin/sh
# Certificates for development, valid for 30 days: an authority, a server of this machine, a client. `make dev-certs`.
#   sh deploy/dev_certs.sh DIRECTORY
# The key of the authority stays there: with it anyone can make certificates that your clients accept.
set -eu
umask 077
mkdir -p "$1"
cd "$1"
host=$(hostname)

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key" 2>/dev/null; }

# name, extended key usage, alternative names
signed() {
  key "$1"
  openssl req -new -key "$1.key" -subj "/CN=albireo development $1" -out "$1.csr"
  printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=%s\nsubjectAltName=%s\n' \
    "$2" "$3" >"$1.ext"
  openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -days 30 -sha256 -extfile "$1.ext" -out "$1.pem" 2>/dev/null
  rm "$1.csr" "$1.ext"
}

key ca
openssl req -x509 -key ca.key -days 30 -sha256 -subj '/CN=albireo development authority' \
  -addext 'basicConstraints=critical,CA:TRUE,pathlen:0' -addext 'keyUsage=critical,keyCertSign,cRLSign' -out ca.pem
signed server serverAuth "DNS:localhost,DNS:$host,IP:127.0.0.1,IP:::1"
signed client clientAuth DNS:client
