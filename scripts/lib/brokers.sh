# shellcheck shell=bash
# Starts and stops brokers for the checks: Apache Kafka as the peer, or Millrace. To be sourced after install.sh.
#
# How it works:
# 1. start_kafka and start_millrace run one broker on 127.0.0.1, wait until it is ready, and set BROKER_PID and BOOTSTRAP.
# 2. What was started is remembered by pid, and stop_brokers (also run at exit) ends just these: SIGTERM, then SIGKILL after 15 s.
# 3. Ports come from below the ephemeral range: a client that polls a closed ephemeral port can connect to itself and keep the broker out.
#
# Knows nothing of: what is then done with the broker.

source "$LIB_DIR/clean.sh"

BROKER_PIDS=()

# A free TCP port between 10240 and 32767.
free_port() {
    python3 - <<'PY'
import random, socket
for _ in range(200):
    port = random.randrange(10240, 32768)
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            continue
    print(port)
    break
else:
    raise SystemExit("no free port below 32768 after 200 tries")
PY
}

java_classpath() { printf '%s/*' "$1"; }

# format_kafka DIR PORT [LINE...]: writes DIR/server.properties (with LINEs added) and formats DIR/data, if not done yet.
format_kafka() {
    local dir="$1" port="$2" libs controller id
    shift 2
    [[ -e "$dir/server.properties" ]] && return
    libs="$(need_java broker)"
    mkdir -p "$dir"
    controller="$(free_port)"
    sed -e "s/@PORT@/$port/" -e "s/@CONTROLLER@/$controller/" -e "s#@DATA@#$dir/data#" "$LIB_DIR/peer/server.properties" > "$dir/server.properties"
    [[ $# == 0 ]] || printf '%s\n' "$@" >> "$dir/server.properties"
    id="$(java -cp "$(java_classpath "$libs")" kafka.tools.StorageTool random-uuid 2>/dev/null)"
    java -cp "$(java_classpath "$libs")" -Dlog4j2.configurationFile="$LIB_DIR/peer/log4j2.properties" \
        kafka.tools.StorageTool format -t "$id" -c "$dir/server.properties" > "$dir/format.log" 2>&1 ||
        { cat "$dir/format.log" >&2; die "formatting the peer's storage failed"; }
}

# start_kafka DIR [PORT [LINE...]]: the peer broker with its data below DIR; a DIR used before is opened again on the same ports.
start_kafka() {
    local dir="$1" port="${2:-}" libs
    shift; [[ $# == 0 ]] || shift
    [[ -n "$port" ]] || port="$(free_port)"
    libs="$(need_java broker)"
    format_kafka "$dir" "$port" "$@"
    java -Xms1G -Xmx1G -cp "$(java_classpath "$libs")" -Dpeer.log.level=info -Dlog4j2.configurationFile="$LIB_DIR/peer/log4j2.properties" \
        kafka.Kafka "$dir/server.properties" >> "$dir/broker.log" 2>&1 &
    BROKER_PID=$!
    BROKER_PIDS+=("$BROKER_PID")
    BOOTSTRAP="127.0.0.1:$port"
    wait_answers "$BOOTSTRAP" "$BROKER_PID" "$dir/broker.log" 180
    say "kafka pid $BROKER_PID at $BOOTSTRAP"
}

# millrace_binary: where the release build is.
millrace_binary() {
    local binary="${MILLRACE_BIN:-${CARGO_TARGET_DIR:-$SCRIPTS_DIR/../target}/release/millrace}"
    [[ -x "$binary" ]] || die "$binary is not there: build it with 'cargo build --release', or name another in MILLRACE_BIN"
    printf '%s\n' "$binary"
}

# start_millrace DIR [PORT [ARGUMENT...]]: Millrace with its data in DIR/data, ready when its log says so.
start_millrace() {
    local dir="$1" port="${2:-}" binary from deadline
    shift; [[ $# == 0 ]] || shift
    [[ -n "$port" ]] || port="$(free_port)"
    binary="$(millrace_binary)"
    mkdir -p "$dir/data"
    touch "$dir/broker.log"
    from=$(($(stat -c %s "$dir/broker.log") + 1))
    "${MILLRACE_CLEAN[@]}" "$binary" start --data-dir "$dir/data" --kafka-addr "127.0.0.1:$port" "$@" >> "$dir/broker.log" 2>&1 &
    BROKER_PID=$!
    BROKER_PIDS+=("$BROKER_PID")
    BOOTSTRAP="127.0.0.1:$port"
    deadline=$((SECONDS + 60))
    until tail -c "+$from" "$dir/broker.log" | grep -qw ready; do
        kill -0 "$BROKER_PID" 2>/dev/null || { tail -20 "$dir/broker.log" >&2; die "millrace ended before it was ready"; }
        ((SECONDS < deadline)) || { tail -20 "$dir/broker.log" >&2; die "millrace was not ready after 60 s"; }
        sleep 0.05
    done
    say "millrace pid $BROKER_PID at $BOOTSTRAP"
}

# wait_answers HOST:PORT PID LOG SECONDS: returns once ApiVersions is answered (the first thing any client asks).
wait_answers() {
    python3 "$LIB_DIR/answers.py" "$1" "$2" "$4" || { tail -20 "$3" >&2; die "the broker at $1 does not answer"; }
}

# stop_broker PID [SIGNAL]: ends one broker that this shell started.
stop_broker() {
    local pid="$1" signal="${2:-TERM}" kept=() p
    kill -"$signal" "$pid" 2>/dev/null
    for _ in $(seq 150); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -KILL "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
    for p in "${BROKER_PIDS[@]}"; do [[ "$p" == "$pid" ]] || kept+=("$p"); done
    BROKER_PIDS=("${kept[@]}")
}

stop_brokers() {
    local pid
    for pid in "${BROKER_PIDS[@]}"; do stop_broker "$pid"; done
}
trap stop_brokers EXIT
