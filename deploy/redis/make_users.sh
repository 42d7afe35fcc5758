#!/bin/sh
# Random passwords for the users of users.acl: writes DIRECTORY/users.acl with their hashes, for redis-server's option
# aclfile, and DIRECTORY/<user>.password, for ALBIREO_REDIS_PASSWORD_FILE of each tier.
#   sh deploy/redis/make_users.sh DIRECTORY
set -eu
umask 077
mkdir -p "$1"
cp "$(dirname "$0")/users.acl" "$1/users.acl"
for user in gateway scheduler worker admin; do
  openssl rand -hex 32 | tr -d '\n' >"$1/$user.password"
  hash=$(openssl dgst -sha256 -r <"$1/$user.password" | cut -d ' ' -f 1)
  sed "s/^user $user on/& #$hash/" "$1/users.acl" >"$1/users.new"
  mv "$1/users.new" "$1/users.acl"
done
