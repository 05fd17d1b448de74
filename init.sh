#!/usr/bin/env -S bash -p
# Make the virtual environment .env from the pip list of environment.yml. Running it again brings .env up to date.
set -euo pipefail +o noclobber
unset CDPATH POSIXLY_CORRECT PYTHONHOME PYTHONPATH PIP_PREFIX PIP_TARGET PIP_USER # as in run.sh; all goes into .env
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"

python=
for candidate in python3.11 python3 python; do
  if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [[ -z $python ]]; then
  found=$(python3 --version 2>/dev/null || echo "no python3")
  echo "init.sh: Python 3.11 or newer with its venv module is needed, found $found: install it and run this again" >&2
  exit 1
fi

if ! .env/bin/python -m pip --version >/dev/null 2>&1; then # none yet, or a broken one
  "$python" -m venv --clear .env
fi
sed -n 's/^      - //p' environment.yml >.env/requirements.txt
.env/bin/python -m pip install --quiet --disable-pip-version-check --requirement .env/requirements.txt
pwd >"$(.env/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/challenge.pth" # found from any folder
cp environment.yml .env/environment.yml # says that .env is whole, and of which list
echo "init.sh: .env is ready; enter it with: source .env/bin/activate"
