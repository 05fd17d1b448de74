#!/usr/bin/env -S bash -p
# The whole job: serve, train, predict, score.
#
#   ./run.sh                         on the embedded sample
#   ./run.sh TRAIN.csv TEST.csv      on your files
#   ENDPOINT=https://…/ ./run.sh     on the files of a challenge server, which gets the results
#   ./run.sh test [ARGUMENT…]        the tests; arguments go to pytest
#   ./run.sh bench [FOLDER]          a table beside fastText and TF-IDF, on the files of a folder
#
# PORT (9876), CHALLENGE_MODEL (model.pt) and CHALLENGE_TOKEN can be set, and for bench BENCH_COLUMNS (synopsis year). The
# rankings are written to submission.json.
set -euo pipefail +o noclobber

# Nothing else that is set in somebody's shell may change the work. bash -p takes no functions, options or start-up file
# from there, and curl -q, its first option, no .curlrc.
export LC_ALL=C.UTF-8 # numbers with a decimal point, text in UTF-8
unset CDPATH GREP_OPTIONS POSIXLY_CORRECT           # change what cd, grep and others do
unset FORCE_COLOR MYPY_FORCE_COLOR PYTHONSAFEPATH   # hide errors in colours, and the package from Python
unset WEB_CONCURRENCY "${!UVICORN_@}"               # options of the server

fail() {
  echo "run.sh: $1" >&2
  exit "${2:-1}"
}

stop_server() {
  [[ -n $server ]] || return 0
  kill "$server" 2>/dev/null || true
  for _ in {1..30}; do
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
  done
  kill -9 "$server" 2>/dev/null || true # a training that is still running; the model on disk stays whole
  wait "$server" 2>/dev/null || true
  server=''
}

post() { # post ROUTE CSV ANSWER
  local name=${2//\\/\\\\} status # between quotation marks, curl wants a backslash before \ and "
  curl -q -sS --noproxy '*' --header "@$work/token" -o "$3" -w '%{http_code}' \
    --form "file=@\"${name//\"/\\\"}\";type=text/csv" "$url/genres/$1" >"$work/status" 2>"$work/reason" &
  wait $! || fail "the server did not answer to $1: $(cat "$work/reason")" # only a wait is ended by kill at once
  status=$(cat "$work/status")
  [[ $status == 200 ]] || fail "$1: the server answered $status: $(cat "$3")"
}

as_json() { # as_json TEXT
  python -c 'import json, sys; print(json.dumps(sys.argv[1]))' "$1"
}

from_json() { # from_json FILE [KEY]
  python -c '
import json, sys
with open(sys.argv[1]) as file:
    answer = json.load(file)
print(answer[sys.argv[2]] if sys.argv[2:] else answer)' "$@"
}

# Set-up, where .env is missing, unfinished, or of another list
home=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
[[ ${1:-} =~ ^(test|bench)$ || $# == 0 || $# == 2 ]] ||
  fail "usage: ./run.sh [TRAIN.csv TEST.csv | test [ARGUMENT…] | bench [FOLDER]]" 2
train=$home/challenge/sample/train.csv test=$home/challenge/sample/test.csv
if [[ ! ${1:-} =~ ^(test|bench)$ && $# == 2 ]]; then
  for file in "$@"; do [[ -r $file && ! -d $file ]] || fail "$file: no such file, or not readable" 2; done
  train=$1 test=$2
  [[ $train == /* ]] || train=$PWD/$train
  [[ $test == /* ]] || test=$PWD/$test
fi
if [[ ${1:-} == bench && $# == 2 ]]; then
  [[ -d $2 ]] || fail "$2: no such folder" 2
  BENCH_FOLDER=$(realpath -- "$2")
  export BENCH_FOLDER
fi
cd "$home"
cmp -s environment.yml .env/environment.yml || ./init.sh
source .env/bin/activate
if [[ ${1:-} == test ]]; then
  shift
  command -v chromium chromium-browser google-chrome >/dev/null ||
    echo "run.sh: no Chromium is installed, so the page is NOT tested (chapter 6)" >&2
  compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v postgres >/dev/null ||
    echo "run.sh: no PostgreSQL is installed, so sweeps that share one are NOT tested (chapter 8)" >&2
  unset ENDPOINT CHALLENGE_MODEL CHALLENGE_TOKEN CHALLENGE_HOSTS # the tests set them where they need them
  export no_proxy='*' NO_PROXY='*'                               # and ask this machine alone
  exec python -m pytest --numprocesses 2 --dist loadfile "$@"
elif [[ ${1:-} == bench ]]; then
  peers=${TMPDIR:-/tmp}/challenge-peers # outside the project, which needs none of it
  [[ -x $peers/bin/python ]] || python -m venv "$peers"
  "$peers/bin/python" -m pip install --quiet --disable-pip-version-check scikit-learn fasttext-numpy2-wheel
  BENCH_PEERS=$peers/bin/python exec python -m pytest -qs challenge/chapters/10-benchmark.md
fi

# 1. Ask who you are, where git does not know and the results are sent  2. Get the data
who() { # who KEY QUESTION
  git config "$1" && return
  [[ -t 0 ]] || fail "no $2: set it with git config --global $1 …"
  read -rp "Your $2: " answer && echo "$answer"
}
server='' work=$(mktemp -d)
new=submission.json.$$ # not in $work: mv is all or nothing only within a file system
trap 'stop_server; rm -rf "$work" "$new"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
if [[ -n ${ENDPOINT:-} ]]; then
  username=$(who user.name name)
  email=$(who user.email e-mail)
  for part in train test; do
    curl -q -fsSL -o "$work/address" "${ENDPOINT}${part}_url/2" || fail "no address of $part.csv from $ENDPOINT"
    curl -q -fsSL -o "$work/$part.csv" "$(from_json "$work/address")" || fail "no $part.csv from $(cat "$work/address")"
  done
  train=$work/train.csv test=$work/test.csv
fi
[[ -f $train ]] || { cat "$train" >"$work/train.csv" && train=$work/train.csv; } # a pipe can be read only once
[[ -f $test ]] || { cat "$test" >"$work/test.csv" && test=$work/test.csv; }

# 3. Start the server
port=${PORT:-9876} url=http://127.0.0.1:${PORT:-9876}
[[ $port =~ ^[0-9]+$ ]] || fail "PORT=$port is not a number" 2
(: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null && fail "port $port is in use; choose another, as in PORT=9877 ./run.sh"
uvicorn challenge:app --host 127.0.0.1 --port "$port" --log-level warning >"$work/server.log" 2>&1 &
server=$!
SECONDS=0 # bash counts them
until curl -q -fs --noproxy '*' --max-time 5 -o "$work/ready" "$url/openapi.json"; do
  kill -0 "$server" 2>/dev/null || fail "the server did not start: $(tail -n 1 "$work/server.log")"
  ((SECONDS < 60)) || fail "the server did not answer within 60 seconds; its log ends with: $(tail "$work/server.log")"
  sleep 0.2
done

# 4. Train  5. Predict  6. Stop the server
token=''
[[ ${CHALLENGE_TOKEN:-} =~ [^[:space:]](.*[^[:space:]])? ]] && token="Authorization: Bearer ${BASH_REMATCH[0]}"
echo "$token" >"$work/token" # curl reads it there: a list of the processes shows all that curl is called with
post train "$train" "$work/trained.json"
post predict "$test" "$work/submission.json"
cp "$work/submission.json" "$new"
mv -fT "$new" submission.json
stop_server

# 7. Code quality: a name, a number of errors (of lines for sloc) and a score a line
outside=$(find . -name '*.py' -not -path './challenge/*' -not -path './.env/*' | wc -l)
sloc=$(pygount challenge --suffix py | awk '{ sum += $1 } END { print sum + 0 }')
{
  echo "files $outside"
  echo "sloc $sloc"
  echo "flake8 $(flake8 challenge | wc -l)"
  echo "isort $(isort challenge --diff 2>/dev/null | grep -Ec '^\+(import|from)')"
  echo "mypy $(mypy challenge | grep -c ': error:')"
  echo "pydocstyle $(pydocstyle challenge 2>/dev/null | grep -Ec '^ +D[0-9]')"
} | awk -v sloc="$sloc" '
  $1 == "files" { score = $2 == 0 }
  $1 == "sloc" { score = exp(-$2 / 800 + 0.125); if (score > 1) score = 1 }
  $1 != "files" && $1 != "sloc" { score = exp(-8 * $2 / sloc) }
  { print $1, $2, score }' >"$work/quality"
quality=$(awk '{ product = NR == 1 ? $3 : product * $3 } END { print product ^ (1 / NR) }' "$work/quality")

# 8. Predictive score, where the genres are known here  9. Total
predictive=unknown total=unknown
if python -m challenge evaluate "$test" submission.json >"$work/evaluation" 2>"$work/reason"; then
  cat "$work/evaluation"
  predictive=$(awk '/^MAP@5/ { print $2 }' "$work/evaluation")
  total=$(awk -v a="$quality" -v b="$predictive" 'BEGIN { print sqrt(a * b) }')
elif ! grep -q genres "$work/reason"; then
  cat "$work/reason" >&2
fi
percent() { awk -v share="$1" 'BEGIN { if (share == "unknown") print share; else printf "%.1f %%", 100 * share }'; }
row() { printf '| %-12s %10s  %-21s |\n' "$@"; }
edge='+------------------------------------------------+'
echo
echo "$edge"
while read -r name errors score; do
  row "$name" "$(percent "$score")" "$errors $([[ $name == sloc ]] && echo 'lines of code' || echo errors)"
done <"$work/quality"
echo "$edge"
row 'code quality' "$(percent "$quality")" ''
row 'predictive' "$(percent "$predictive")" 'MAP@5'
row 'total' "$(percent "$total")" 'geometric mean'
echo "$edge"
[[ -n ${ENDPOINT:-} ]] || exit 0

# 10. Send the results
{
  printf '{"username": %s, "email": %s, "code_quality": ' "$(as_json "$username")" "$(as_json "$email")"
  awk '{ printf "%s\"%s\": [%s, %s]", NR == 1 ? "{" : ", ", $1, $3, $2 } END { printf "}" }' "$work/quality"
  printf ', "predictions": '
  cat submission.json
  printf '}'
} >"$work/results.json"
status=$(curl -q -sS -o "$work/answer" -w '%{http_code}' --header 'Content-Type: application/json' \
  --data-binary "@$work/results.json" "${ENDPOINT}eval/2") || fail "no answer from $ENDPOINT"
[[ $status == 200 ]] || fail "$ENDPOINT refused the results: $(from_json "$work/answer" detail 2>/dev/null || cat "$work/answer")"
from_json "$work/answer" text
