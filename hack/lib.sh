# shellcheck shell=bash
# Shell functions that the scripts in hack/ share. Source it; it needs `set -euo pipefail`, bash and util-linux.

# The top of the work tree.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

# Where binaries that outlive the work tree are kept.
DCV_CACHE=${DCV_CACHE:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/dcv-operator}

# client_jars, client_python: the folders of what tests with generated clients need. Other pins, another folder.
client_jars() {
  printf '%s/client-jars-%s\n' "$DCV_CACHE" "$(sha256sum "$ROOT/e2e/clients/jars.sha256" | cut -c1-12)"
}
client_python() {
  printf '%s/client-python-%s\n' "$DCV_CACHE" "$(sha256sum "$ROOT/e2e/clients/requirements.txt" | cut -c1-12)"
}

# say TEXT…: one line of progress, on stderr, after the name of the script.
say() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# die TEXT…: says why and ends the script with 1.
die() {
  say "$@"
  exit 1
}

# usage_error TEXT…: for a wrong argument: says which, points to --help and ends the script with 2.
usage_error() {
  say "$*"
  say "try $0 --help"
  exit 2
}

# need COMMAND…: ends the script when a command is missing.
need() {
  local command
  for command in "$@"; do
    command -v "$command" >/dev/null || die "$command is not installed; hack/setup installs what is missing"
  done
}

# check_name NAME: ends the script unless NAME can name an instance, hence a folder.
check_name() {
  [[ $1 =~ ^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
    usage_error "a name is 1 to 40 small letters, digits and dashes, not '$1'"
}

# instance_dir NAME: prints the folder that holds everything of one instance.
instance_dir() {
  printf '%s/target/dev/%s\n' "$ROOT" "$1"
}

# wait_for SECONDS WHAT COMMAND…: runs COMMAND until it succeeds; returns 1 when the time is over or when COMMAND returns 99, which means hopeless.
wait_for() {
  local seconds=$1 what=$2 start=$SECONDS beat=15 rc
  shift 2
  while true; do
    rc=0
    "$@" || rc=$?
    ((rc == 0)) && return 0
    ((rc == 99)) && return 1
    if ((SECONDS - start >= seconds)); then
      say "gave up waiting for $what after ${seconds} s"
      return 1
    fi
    if ((SECONDS - start >= beat)); then
      say "waiting for $what ($((SECONDS - start)) of at most ${seconds} s)"
      ((beat += 15))
    fi
    sleep 0.2
  done
}

# heartbeat WHAT COMMAND…: runs COMMAND, and every 15 s says WHAT (a text, or the name of a function that prints one) and how long it has taken.
heartbeat() {
  local what=$1 rc=0 beater
  shift
  # COMMAND is in the foreground, so that Ctrl-C reaches it.
  (
    exec >&2
    seconds=0
    while sleep 1 && kill -0 $$ 2>/dev/null; do
      ((++seconds % 15)) || say "$(declare -F "$what" >/dev/null && "$what" || printf '%s\n' "$what"): ${seconds} s"
    done
  ) &
  beater=$!
  "$@" || rc=$?
  kill "$beater" 2>/dev/null || true
  wait "$beater" 2>/dev/null || true
  return "$rc"
}

# lock_file FD FILE SECONDS WHAT: opens FILE as descriptor FD and locks it until the script ends; returns 1 when another process keeps it.
lock_file() {
  local fd=$1 file=$2
  mkdir -p "$(dirname "$file")"
  eval "exec $fd>>\"\$file\""
  flock -n "$fd" || wait_for "$3" "$4" flock -n "$fd"
}

# write_file FILE: stores stdin as FILE, whole or not at all.
write_file() {
  local part=$1.$BASHPID.part
  cat >"$part"
  mv -f "$part" "$1"
}

# port_in_use PORT: whether something listens there, on any address.
port_in_use() {
  local hex
  printf -v hex ':%04X' "$1"
  # Without IPv6 there is no tcp6.
  awk -v port="$hex" '$4 == "0A" && substr($2, length($2) - 4) == port { found = 1 } END { exit !found }' \
    < <(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null)
}

# free_port: prints a port nobody listens on, and keeps it from other callers for two minutes so that parallel starts do not meet.
free_port() {
  local folder=$DCV_CACHE/ports port attempt
  mkdir -p "$folder"
  find "$folder" -type f -mmin +2 -delete 2>/dev/null || true
  # Below the range the kernel takes for outgoing connections and below the NodePort range.
  for ((attempt = 0; attempt < 200; attempt++)); do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 10000))
    port_in_use "$port" && continue
    # noclobber makes the claim atomic.
    if (set -o noclobber && : >"$folder/$port") 2>/dev/null; then
      printf '%s\n' "$port"
      return 0
    fi
  done
  die "found no free port between 20000 and 29999"
}

# A pid alone is no proof: numbers are used again. FILE.pid.start notes the boot and the start time of the process.

# process_start PID: prints what tells a process from a later one with its number; fails when it is gone or a zombie.
process_start() {
  local stat fields
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
  # The name in parentheses may hold blanks; what follows the last one is regular.
  read -ra fields <<<"${stat##*) }"
  [[ ${fields[0]} != [ZX] ]] || return 1
  printf '%s %s\n' "$(</proc/sys/kernel/random/boot_id)" "${fields[19]}"
}

# daemon_pid PIDFILE: prints the pid of the daemon that wrote PIDFILE, if that very process lives.
daemon_pid() {
  local pid start
  { read -r pid <"$1" && read -r start <"$1.start"; } 2>/dev/null || return 1
  [[ $pid =~ ^[0-9]+$ && $(process_start "$pid") == "$start" ]] || return 1
  printf '%s\n' "$pid"
}

# daemon_running PIDFILE: whether that daemon lives.
daemon_running() {
  daemon_pid "$1" >/dev/null
}

# start_daemon PIDFILE LOGFILE COMMAND…: starts COMMAND in a session of its own, output appended to LOGFILE; returns once PIDFILE is written.
start_daemon() {
  local pidfile=$1 log=$2
  shift 2
  mkdir -p "$(dirname "$pidfile")" "$(dirname "$log")"
  rm -f "$pidfile" "$pidfile.start"
  if [[ -f $log && $(stat -c %s "$log") -gt 52428800 ]]; then
    mv -f "$log" "$log.1"
  fi
  export -f process_start
  # What a script starts by `&` ignores SIGINT, and everything below it inherits that: Ctrl-C would be dead in a desktop's terminals.
  # The pid is written last, by the process that becomes COMMAND; open files (locks) stay here.
  # shellcheck disable=SC2016 # the inner shell expands it
  setsid --fork env --default-signal bash -c '
    for fd in /proc/$$/fd/*; do
      fd=${fd##*/}
      ((fd <= 2)) || eval "exec $fd>&-"
    done
    process_start $$ >"$0.start"
    echo $$ >"$0.part"
    mv -f "$0.part" "$0"
    unset -f process_start
    exec "$@"' "$pidfile" "$@" </dev/null >>"$log" 2>&1
  export -fn process_start
  wait_for 10 "$(basename "$1") to be started" test -s "$pidfile"
}

# stop_daemon PIDFILE [SECONDS]: TERM, a wait (10 s by default), KILL; quiet when that daemon is not running; the pid file is gone afterwards.
stop_daemon() {
  local pidfile=$1 seconds=${2:-10} pid tenths=0
  if pid=$(daemon_pid "$pidfile"); then
    kill -TERM "$pid" 2>/dev/null || true
    while daemon_running "$pidfile"; do
      if ((tenths++ == seconds * 10)); then
        say "$(basename "$pidfile" .pid) ($pid) did not end in ${seconds} s: killing it"
        kill -KILL "$pid" 2>/dev/null || true
      elif ((tenths > seconds * 10 + 100)); then
        say "$(basename "$pidfile" .pid) ($pid) cannot be killed"
        return 1
      fi
      sleep 0.1
    done
  fi
  rm -f "$pidfile" "$pidfile.start"
}

# show_log LOGFILE [LINES]: the end of a log (20 lines by default) on stderr, for when its process failed.
show_log() {
  [[ -s $1 ]] || return 0
  say "the end of $1:"
  tail -n "${2:-20}" "$1" | cut -c1-400 | sed 's/^/    /' >&2
}
