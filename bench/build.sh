# Builds the program and the load client, and keeps what is measured: source of bench/run and bench/tls, which have set
# smoke. Sets load, snowbank, out, data, amount and duration.

executable() { sed -n 's/.*"name":"'"$1"'".*"executable":"\([^"]*\)".*/\1/p' | tail -1; }
if $smoke; then
  # Just what `cargo test --all-targets` has built; a benchmark comes with the program it is of.
  built=$(cargo test --no-run --bench load --message-format=json 2>/dev/null)
  out=target/bench-smoke/out data=$PWD/target/bench-smoke/data amount=little duration=1s
else
  cargo build --release --quiet
  built=$(cargo bench --no-run --bench load --message-format=json 2>/dev/null)
  out=bench/out data=$PWD/target/bench-data amount= duration=2s
fi
load=$(executable load <<<"$built")
snowbank=$(executable snowbank <<<"$built")

# row MEASURE AGAINST UNIT more|less REFERENCE OURS
row() { local IFS=$'\t'; echo "$*" >>"$out/rounds.tsv"; }
