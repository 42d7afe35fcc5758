#!/bin/sh
# Makes a virtual environment without a network: of the wheels that wheels.sh has downloaded, on top of the packages
# of a Python that has torch. `make test-gpu` runs it where there are wheels. Run from the root of the checkout:
#   sh deploy/gpu/environment.sh WHEELS ENVIRONMENT
# The project itself is not built: it is imported from the checkout.
set -eu

wheels=$1
environment=$2
python=${PYTHON:-python3}

"$python" -c 'import numpy, torch; print("torch", torch.__version__, "numpy", numpy.__version__)'
# Without pip, whose wheels not every Python has at hand: that of $python installs.
"$python" -m venv --without-pip "$environment"
"$python" -m pip --python "$environment/bin/python" install --quiet --disable-pip-version-check --no-index --no-deps \
	--no-compile --require-hashes --find-links "$wheels" -r deploy/locks/gpu.txt
# What the environment lacks comes from the checkout and from $python, which may itself be a virtual environment:
# --system-site-packages would pass over the packages of one.
"$python" - "$environment" <<'PYTHON'
import os, sys, sysconfig
site = sysconfig.get_path("purelib", vars={"base": sys.argv[1], "platbase": sys.argv[1]})
folders = [os.getcwd(), *(path for path in sys.path if path.endswith(("site-packages", "dist-packages")))]
with open(os.path.join(site, "checkout_and_torch.pth"), "w", encoding="utf-8") as paths:
    paths.write("\n".join(folders) + "\n")
PYTHON
