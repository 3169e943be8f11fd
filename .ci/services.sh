# Sourced by .ci/run: the real services, used where they run, installed and started where not.
# Exports DATABASE_URL, REDIS_URL and CELERY_BROKER_URL.

have() { command -v "$1" >/dev/null 2>&1; }

await() { # await SECONDS COMMAND…: until it succeeds
    local deadline=$((SECONDS + $1)); shift
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS > deadline)); then echo "gave up waiting for: $*" >&2; return 1; fi
        sleep 0.5
    done
}

apt_updated=
install_missing() { # install_missing PROGRAM PACKAGE…
    have "$1" && return
    if [ -z "$apt_updated" ]; then apt-get update -qq; apt_updated=1; fi
    # A package's own start-up must not decide whether this run goes on.
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${@:2}" >/dev/null
}

postgres_answers() { have psql && psql -qAt -w -h 127.0.0.1 -p "${1:-5432}" -U postgres -c 'select 1' postgres; }
redis_answers() { have redis-cli && [ "$(redis-cli -h 127.0.0.1 ping 2>/dev/null)" = PONG ]; }
rabbit_answers() { have rabbitmqctl && rabbitmqctl -q await_startup --timeout 5 && (exec 3<>/dev/tcp/127.0.0.1/5672); }

start_postgres() {
    postgres_port=5432
    postgres_answers && return
    ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || install_missing initdb postgresql postgresql-contrib
    # A cluster of our own: no configuration of the machine's is touched.
    local bin data
    bin=$(dirname "$(ls /usr/lib/postgresql/*/bin/initdb | tail -n 1)")
    data=$(mktemp -d)/data
    postgres_port=54329
    chown -R postgres "$(dirname "$data")"
    su postgres -s /bin/sh -c "cd / && '$bin/initdb' -D '$data' -A trust -U postgres >/dev/null &&
        '$bin/pg_ctl' -D '$data' -l '$data/log' -w -o '-p $postgres_port -k /tmp -c listen_addresses=127.0.0.1' start >/dev/null"
    await 30 postgres_answers "$postgres_port"
}

start_redis() {
    install_missing redis-server redis-server
    redis_answers && return
    redis-server --daemonize yes --bind 127.0.0.1 --port 6379 --save "" --appendonly no --dir /tmp >/dev/null
    await 15 redis_answers
}

start_rabbit() {
    install_missing rabbitmqctl rabbitmq-server
    rabbit_answers >/dev/null 2>&1 && return
    rabbitmq-server -detached >/dev/null 2>&1 || true
    await 90 rabbit_answers
}

start_postgres
start_redis
start_rabbit
install_missing chromium chromium
install_missing curl curl
install_missing pgbouncer pgbouncer
install_missing nginx nginx
install_missing npm nodejs npm

export DATABASE_URL="postgres://postgres@127.0.0.1:${postgres_port}/postgres"
export REDIS_URL="redis://127.0.0.1:6379/0"
export CELERY_BROKER_URL="amqp://guest:guest@127.0.0.1:5672//"
