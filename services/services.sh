#!/usr/bin/env bash
# PostgreSQL and an MLflow server on it, on loopback, in a folder of their own: services.sh start|stop|status
#
# Needs Debian's `postgresql` and `pip install -e '.[postgres]'`. LEAKPIPE_SERVICES names the folder (default .services,
# which git ignores), LEAKPIPE_MLFLOW_PORT the port (default 5001). PostgreSQL has no port: it answers on a socket in that
# folder, which only its owner may enter. What was logged stays in the folder when the services are stopped.
set -euo pipefail

readonly FOLDER=$(realpath -m "${LEAKPIPE_SERVICES:-$(dirname "$0")/../.services}")
readonly PORT=${LEAKPIPE_MLFLOW_PORT:-5001}
readonly ADDRESS=http://127.0.0.1:$PORT
readonly DATABASE=$FOLDER/postgresql SOCKET=$FOLDER/socket PIDFILE=$FOLDER/mlflow.pid

fail() {
    echo "services.sh: $*" >&2
    exit 1
}

# PostgreSQL refuses to run as root; Debian's package made a user for it.
as_owner() {
    if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi
}

find_programs() {
    local newest
    newest=$(find /usr/lib/postgresql -mindepth 1 -maxdepth 1 2>/dev/null | sort -V | tail -n 1)
    [ -n "$newest" ] && PROGRAMS=$newest/bin || PROGRAMS=$(dirname "$(command -v pg_ctl)") ||
        fail "PostgreSQL is missing: apt-get install postgresql"
    command -v mlflow >/dev/null || fail "mlflow is missing: activate the environment that leakpipe is installed in"
    python -c 'import psycopg2' 2>/dev/null || fail "psycopg2 is missing: pip install 'leakpipe[postgres]'"
}

pg_ctl() {
    # From the database's own folder, by relative names: it hands them to a shell, which reads `$` and quotes. With its
    # output in a file, else it would keep ours open.
    (cd / && as_owner env --chdir="$DATABASE" "$PROGRAMS/pg_ctl" --silent --wait --pgdata . "$@")
}

start_postgresql() {
    if [ ! -e "$DATABASE/PG_VERSION" ]; then
        mkdir -p "$FOLDER"
        if [ "$(id -u)" = 0 ]; then install -d -o postgres -m 700 "$DATABASE" "$SOCKET"; else mkdir -m 700 -p "$DATABASE" "$SOCKET"; fi
        (cd / && as_owner "$PROGRAMS/initdb" --pgdata "$DATABASE" --username leakpipe --auth trust --encoding UTF8 >/dev/null) ||
            fail "no database could be made in $DATABASE; may its user enter that folder?"
    fi
    pg_ctl status >/dev/null 2>&1 && return
    pg_ctl start --log server.log --options "-c listen_addresses= -c unix_socket_directories=../socket" >/dev/null ||
        fail "PostgreSQL does not start; $DATABASE/server.log says why"
    query() { (cd / && as_owner "$PROGRAMS/psql" --host "$SOCKET" --username leakpipe --dbname postgres --quiet "$@"); }
    query --tuples-only --command "SELECT 1 FROM pg_database WHERE datname = 'mlflow'" | grep -q 1 ||
        query --command "CREATE DATABASE mlflow"
}

# Whether a process of the server's session lives; a dead one that nobody has collected does not.
mlflow_runs() {
    [ -e "$PIDFILE" ] && ps -o stat= --sid "$(cat "$PIDFILE")" | grep -q '^[^Z]'
}

answers() {
    python - "$ADDRESS/health" <<<'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=2)' 2>/dev/null
}

# Text as part of an address.
in_address() {
    python -c 'import sys, urllib.parse; print(urllib.parse.quote(sys.argv[1], safe=""))' "$1"
}

start_mlflow() {
    mlflow_runs && return
    answers && fail "port $PORT is taken; choose another with LEAKPIPE_MLFLOW_PORT"
    # A session of its own, so that its workers end with it.
    MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false setsid mlflow server --host 127.0.0.1 --port "$PORT" --workers 2 \
        --backend-store-uri "postgresql://leakpipe@/mlflow?host=$(in_address "$SOCKET")" --artifacts-destination "$FOLDER/artifacts" \
        >"$FOLDER/mlflow.log" 2>&1 </dev/null &
    echo $! >"$PIDFILE"
    for _ in $(seq 120); do
        answers && return
        mlflow_runs || break
        sleep 1
    done
    fail "MLflow does not start; $FOLDER/mlflow.log says why"
}

stop_mlflow() {
    if mlflow_runs; then
        kill -- "-$(cat "$PIDFILE")"
        for _ in $(seq 50); do
            mlflow_runs || break
            sleep 0.2
        done
        mlflow_runs && kill -KILL -- "-$(cat "$PIDFILE")"
    fi
    rm -f "$PIDFILE"
}

case $FOLDER in *,*) fail "$FOLDER has a comma, which PostgreSQL takes for the end of a host; set LEAKPIPE_SERVICES to another folder" ;; esac
find_programs
case ${1:-} in
    start)
        start_postgresql
        start_mlflow
        echo "MLflow on PostgreSQL answers at $ADDRESS. To log there: export MLFLOW_TRACKING_URI=$ADDRESS"
        ;;
    stop)
        stop_mlflow
        if pg_ctl status >/dev/null 2>&1; then pg_ctl stop --mode fast; fi
        echo "stopped; what was logged stays in $FOLDER"
        ;;
    status)
        answers && echo "MLflow answers at $ADDRESS" || { echo "MLflow does not answer at $ADDRESS"; exit 1; }
        ;;
    *) fail "expected start, stop or status" ;;
esac
