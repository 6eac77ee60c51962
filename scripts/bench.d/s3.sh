# shellcheck shell=bash
# Sourced by scripts/bench: restoring an image tree from the copy in an S3 server, by bkp and by restic from the very same objects.

bench_s3() {
  local round s3_endpoint s3_port restic
  need_images
  eval "$(BKP_LAB_S3=$bin/examples/s3 scripts/lab up s3 "$work/s3" 0 --bucket bench --access-key bench --secret-key bench-secret |
    sed 's/^/s3_/')"
  (umask 077; echo bench-secret >"$work/s3.key")
  fresh_policy offsite "$(files_source "$work/images")
[network]
peers = [\"127.0.0.0/8\"]
[[copy]]
name = \"offsite\"
s3 = { bucket = \"bench\", prefix = \"b\", region = \"us-east-1\", endpoint = \"$s3_endpoint\", path_style = true, access_key_id = \"bench\", secret_access_key_file = \"$work/s3.key\" }"
  "$bin/bkp" backup "$work/offsite/policy.toml" --no-copy --quiet >"$work/log.txt" 2>&1 || { cat "$work/log.txt" >&2; exit 1; }
  measure "s3 copy" bkp "$bin/bkp" copy "$work/offsite/policy.toml" --quiet
  export AWS_ACCESS_KEY_ID=bench AWS_SECRET_ACCESS_KEY=bench-secret
  restic=("$BKP_TEST_RESTIC019" -q -r "s3:$s3_endpoint/bench/b" --password-file "$work/offsite/key" --no-cache)
  for ((round = 0; round < rounds; round++)); do
    rm -rf "${work:?}/restored"
    measure "s3 restore" bkp "$bin/bkp" restore "$work/offsite/policy.toml" --from offsite --to-dir "$work/restored" --yes --quiet
    rm -rf "${work:?}/restored"
    measure "s3 restore" restic "${restic[@]}" restore latest --target "$work/restored"
  done
  rm -rf "${work:?}/restored"
}
