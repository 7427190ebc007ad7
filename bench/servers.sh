# Starting and stopping the servers that benchmarks compare, each ended by its own process id; and what figures are made with.

started=()
stop_all() {
  local pid
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${started[@]}"; do wait_gone "$pid"; done
}
wait_gone() {
  local turn
  for turn in $(seq 500); do kill -0 "$1" 2>/dev/null || return 0; sleep 0.02; done
  kill -9 "$1" 2>/dev/null || true
}
wait_for() { # WHAT COMMAND...
  local what=$1 turn
  shift
  for turn in $(seq 1500); do ! "$@" 2>/dev/null || return 0; sleep 0.02; done
  echo "bench/run: waited 30 s in vain: $what" >&2
  return 1
}
answers() { : <"/dev/tcp/127.0.0.1/$1"; }

# Of the numbers on the lines of standard input.
median() { sort -n | awk '{ a[NR] = $1 } END { print (NR % 2) ? a[(NR + 1) / 2] : (a[NR / 2] + a[NR / 2 + 1]) / 2 }'; }

# nginx as one who wants speed sets it up (and with nginx_http and nginx_listen, what more there is): sendfile, open files and misses remembered, one worker a core, no log.
nginx_configuration() { # DIRECTORY, then PORT ROOT pairs
  local directory=$1
  shift
  [ "$(id -u)" != 0 ] || echo "user root;"
  cat <<END
daemon off;
worker_processes auto;
pid $directory/pid;
error_log /dev/null crit;
worker_rlimit_nofile 65536;
events { worker_connections 8192; multi_accept on; }
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  tcp_nodelay on;
  gzip off;
  etag on;
  keepalive_timeout 300s;
  keepalive_requests 100000000;
  open_file_cache max=200000 inactive=300s;
  open_file_cache_valid 300s;
  open_file_cache_min_uses 1;
  open_file_cache_errors on;
  log_not_found off;
  server_tokens off;
  default_type application/octet-stream;
  ${nginx_http:-}
  client_body_temp_path $directory/body;
  proxy_temp_path $directory/proxy;
  fastcgi_temp_path $directory/fastcgi;
  uwsgi_temp_path $directory/uwsgi;
  scgi_temp_path $directory/scgi;
END
  while [ $# -gt 0 ]; do
    # A queue for as many connections as the measured ones open at once.
    echo "  server { listen 127.0.0.1:$1 ${nginx_listen:-} backlog=4096; root $2; }"
    shift 2
  done
  echo "}"
}

start_nginx() { # DIRECTORY, then PORT ROOT pairs; prints the process id of the master
  local directory=$1 pid
  mkdir -p "$directory"
  nginx_configuration "$@" >"$directory/nginx.conf"
  nginx -e /dev/null -p "$directory" -c "$directory/nginx.conf" >"$directory/log" 2>&1 &
  pid=$!
  wait_for "nginx to listen ($directory/log)" answers "$2" || { cat "$directory/log" >&2; return 1; }
  echo "$pid"
}

# Snowbank with a data directory and, except with `none`, the local store of a closure. Writes DIRECTORY/base.
start_snowbank() { # DIRECTORY DATA-DIRECTORY CLOSURE auto|none [ARGUMENT...], which say where it listens
  local directory=$1 pid arguments=("${@:5}")
  [ ${#arguments[@]} -gt 0 ] || arguments=(--listen 127.0.0.1:0)
  mkdir -p "$directory" "$2"
  if $self; then start_stand_in "$@"; return; fi
  env -i PATH="$PATH" \
    NIX_STORE_DIR="$data/$3/store" NIX_STATE_DIR="$data/$3/var" NIX_LOG_DIR="$data/$3/log" \
    "$snowbank" serve --data-dir "$2" --store "$4" "${arguments[@]}" \
    >"$directory/output" 2>"$directory/errors" &
  pid=$!
  wait_for "snowbank to listen" grep -q '^listening on ' "$directory/output" || { cat "$directory/errors" >&2; return 1; }
  sed -n 's/^listening on //p' "$directory/output" | head -1 >"$directory/base"
  echo "$pid"
}

# With --self: nginx in Snowbank's place, with the root that holds what Snowbank would send.
start_stand_in() {
  local directory=$1 port root=$data/$3/bank-zstd
  [ -z "${unbaked_stand_in:-}" ] || root=$data/$3/bank-none
  port=$("$load" ports 1)
  echo "http://127.0.0.1:$port" >"$directory/base"
  start_nginx "$directory" "$port" "$root"
}

# A server that has baked nothing, and the URLs as it names them now. Prints its process id.
start_fresh() { # CLOSURE DIRECTORY
  local unbaked_stand_in=yes
  start_snowbank "$2" "$2/data" "$1" auto
  "$load" urls "$(cat "$2/base")" "$data/$1.hashes" >"$2/urls"
}

# A bank as `nix copy` wrote it, as $work/bank-CLOSURE; linked, so that what a server adds stays out of the data.
link_bank() { # CLOSURE
  mkdir -p "$work/bank-$1"
  cp -al "$data/$1/bank-zstd" "$work/bank-$1/default" 2>/dev/null || cp -a "$data/$1/bank-zstd" "$work/bank-$1/default"
}

# All servers that stay up for the whole run. Sets their addresses and process ids for bench/run.
start_everything() {
  local ports closure base
  ulimit -n 65536 2>/dev/null || true
  read -r -a ports <<<"$("$load" ports 4)"
  nginx_pid=$(start_nginx "$work/nginx" "${ports[0]}" "$data/small/bank-zstd" "${ports[1]}" "$data/small/bank-none" \
    "${ports[2]}" "$data/large/bank-zstd" "${ports[3]}" "$data/large/bank-none")
  started+=("$nginx_pid")
  nginx_small_zstd=http://127.0.0.1:${ports[0]} nginx_small_none=http://127.0.0.1:${ports[1]}
  nginx_large_zstd=http://127.0.0.1:${ports[2]} nginx_large_none=http://127.0.0.1:${ports[3]}

  for closure in small large; do
    link_bank "$closure"
    started+=("$(start_snowbank "$work/run-bank-$closure" "$work/bank-$closure" "$closure" none)")
    base=$(cat "$work/run-bank-$closure/base")
    printf -v "bank_$closure" %s "$base"
    "$load" urls "$base" "$data/$closure.hashes" >"$work/$closure.bank.urls"

    # The local store: read once, then baked.
    started+=("$(start_snowbank "$work/run-local-$closure" "$work/local-$closure" "$closure" auto)")
    printf -v "local_${closure}_pid" %s "${started[-1]}"
    base=$(cat "$work/run-local-$closure/base")
    printf -v "local_$closure" %s "$base"
    bake "$base" "$data/$closure.hashes" "$work/$closure"
  done
  bake "$local_large" "$data/range.hashes" "$work/range"

  # One that has served nothing yet, on the baked files, for its memory.
  idle_pid=$(start_snowbank "$work/run-idle" "$work/local-large" large auto)
  started+=("$idle_pid")
  idle=$(cat "$work/run-idle/base")
  "$load" urls "$idle" "$data/large.hashes" >/dev/null
}

bake() { # BASE HASHES PREFIX
  "$load" urls "$1" "$2" >"$3.raw.urls"
  "$load" nars "$1" "$3.raw.urls" 2 >/dev/null
  "$load" wait-baked "$1" "$2"
  "$load" urls "$1" "$2" >"$3.baked.urls"
}
