# shellcheck shell=bash disable=SC2154 # hack/cluster has set the variables
# Real nodes for hack/cluster, which sources this: a kubelet, a containerd and a kube-proxy each, in namespaces of their own.
#
# A node has its own network, mounts and host name. One process, the node's holder, sleeps in them: once every process of the
# node is gone, so are its mounts and its network, and a kill of everything leaves a bridge and empty cgroups only.
# Every process of a node, those of pods and those that outlive containerd included, is in the node's cgroup and ends by it.

nodes_dir=$dir/nodes # network, count; one folder for each node
network=''           # the number of this instance: its addresses are 10.NUMBER.0.0/16

# Listening addresses of nodes are their own, so nodes need no ports of the machine.
bridge() { printf 'dcvbr%s\n' "$network"; }
bridge_address() { printf '10.%s.0.1\n' "$network"; }
node_address() { printf '10.%s.0.%s\n' "$network" $((10 + $1)); }
pod_range() { printf '10.%s.%s.0/24\n' "$network" $((128 + $1)); }
# Also the machine's name of its end of the node's cable.
node_cgroup() { printf 'dcv%sn%s\n' "$network" "$1"; }

# As docs and other scripts say them; the Service ranges of instances are the same, as nobody but their own nodes sees them.
cluster_dns=10.96.0.10

node_log() { log_of "$1-$2"; }
node_pid() { pid_of "$1-$2"; }

# In the order in which they start. The proxy lets nodes in: the API server itself listens on loopback.
node_control_plane=(kube-scheduler api-proxy)
node_daemons=(node containerd kube-proxy kubelet)

# nodes_noted: how many nodes this instance has had last.
nodes_noted() {
  local count=0
  { read -r count <"$nodes_dir/count"; } 2>/dev/null || true
  printf '%s\n' "$count"
}

# node_numbers: the nodes that have a folder, running or not.
node_numbers() {
  local folder
  for folder in "$nodes_dir"/*/; do
    folder=${folder%/}
    [[ ! ${folder##*/} =~ ^[0-9]+$ ]] || printf '%s\n' "${folder##*/}"
  done
}

# --- addresses

# network_noted: this instance's number, if it has one.
network_noted() {
  { read -r network <"$nodes_dir/network"; } 2>/dev/null
}

# is_of_another CLAIM: whether another instance has this number. One whose folder is gone has not.
is_of_another() {
  local owner
  { read -r owner <"$1"; } 2>/dev/null || return 1
  [[ $owner != "$nodes_dir" && $(cat "$owner/network" 2>/dev/null) == "${1##*/}" ]]
}

# is_unused NUMBER: whether the machine has neither a bridge of that number nor a route to or around its addresses.
is_unused() {
  [[ ! -e /sys/class/net/dcvbr$1 ]] &&
    [[ -z $(ip -4 route show table all root "10.$1.0.0/16") ]] &&
    ! ip -4 route show table all match "10.$1.0.0/16" | grep -qv default
}

# claim_network: sets $network to last time's number, or to a free one. Claims of all work trees of this machine are in one folder.
claim_network() {
  local claims=/run/dcv-operator/networks number
  lock_file 6 "$claims/lock" 60 "another start of nodes" || die "another start of nodes does not end"
  if ! network_noted || is_of_another "$claims/$network"; then
    network=''
    for ((number = 200; number < 240; number++)); do
      if ! is_of_another "$claims/$number" && is_unused "$number"; then
        network=$number
        break
      fi
    done
    [[ -n $network ]] || die "no range 10.200.0.0/16 to 10.239.0.0/16 is free"
    write_file "$nodes_dir/network" <<<"$network"
  fi
  write_file "$claims/$network" <<<"$nodes_dir"
  exec 6>&-
}

make_bridge() {
  local bridge
  bridge=$(bridge)
  [[ -e /sys/class/net/$bridge ]] || ip link add "$bridge" type bridge
  ip address replace "$(bridge_address)/24" dev "$bridge"
  ip link set "$bridge" up
}

# --- cgroups

# cgroup_kind: v1 (also where v2 is mounted beside it), v2, or systemd, which must be asked where it manages v2.
cgroup_kind() {
  if [[ $(stat -f -c %T /sys/fs/cgroup) != cgroup2fs ]]; then
    echo v1
  elif [[ -d /run/systemd/system ]]; then
    echo systemd
  else
    echo v2
  fi
}

# cgroup_folders NODE: its cgroup, in each hierarchy.
cgroup_folders() {
  local cgroup
  cgroup=$(node_cgroup "$1")
  case $(cgroup_kind) in
  v1) awk -v cgroup="$cgroup" '$3 ~ /^cgroup2?$/ { print $2 "/" cgroup }' /proc/mounts ;;
  v2) printf '/sys/fs/cgroup/%s\n' "$cgroup" ;;
  systemd) printf '/sys/fs/cgroup/%s.slice\n' "$cgroup" ;;
  esac
}

make_cgroup() {
  local folder level file controllers
  case $(cgroup_kind) in
  systemd) systemctl start "$(node_cgroup "$1").slice" ;;
  v2)
    controllers=$(sed 's/[^ ]*/+&/g' /sys/fs/cgroup/cgroup.controllers)
    echo "$controllers" >/sys/fs/cgroup/cgroup.subtree_control
    mkdir -p "/sys/fs/cgroup/$(node_cgroup "$1")/daemons"
    ;;
  v1)
    while read -r folder; do
      for level in "$folder" "$folder/daemons"; do
        mkdir -p "$level"
        # No process may enter a group of which no CPU is said.
        for file in cpuset.cpus cpuset.mems; do
          [[ ! -e $level/$file ]] || cat "${level%/*}/$file" >"$level/$file"
        done
      done
    done < <(cgroup_folders "$1")
    ;;
  esac
}

# processes_of NODE [PATTERN]: pids of all its processes, or of those in groups whose path has PATTERN.
processes_of() {
  local folders
  mapfile -t folders < <(cgroup_folders "$1")
  ((${#folders[@]})) || return 0
  find "${folders[@]}" -path "*${2:-}*" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -un
}

# signal_all SIGNAL NODE [PATTERN]: 0 when there was nobody left to signal.
signal_all() {
  local pids
  mapfile -t pids < <(processes_of "$2" "${3:-}")
  ((${#pids[@]})) || return 0
  kill "-$1" "${pids[@]}" 2>/dev/null || true
  return 1
}

remove_cgroup() {
  local folders
  mapfile -t folders < <(cgroup_folders "$1")
  ((${#folders[@]})) || return 0
  [[ $(cgroup_kind) != systemd ]] || systemctl stop "$(node_cgroup "$1").slice" 2>/dev/null || true
  find "${folders[@]}" -depth -type d -exec rmdir {} + 2>/dev/null || true
  [[ -z $(find "${folders[@]}" -maxdepth 0 2>/dev/null) ]]
}

# --- one node

# node_holder NODE: pid of the process that holds its namespaces.
node_holder() { daemon_pid "$(node_pid node "$1")"; }

# on_node NODE COMMAND…: runs it in the node's namespaces.
on_node() {
  local holder
  holder=$(node_holder "$1") || die "node-$1 does not run"
  shift
  nsenter --target "$holder" --mount --uts --net -- "$@"
}

# joined NODE COMMAND…: prints, with a NUL after each word, the command that becomes COMMAND in the node's cgroup.
joined() {
  local folders
  if [[ $(cgroup_kind) == systemd ]]; then
    printf '%s\0' systemd-run --quiet --collect --scope "--slice=$(node_cgroup "$1").slice" -- "$ROOT/hack/nodes/join" ''
  else
    mapfile -t folders < <(cgroup_folders "$1")
    printf '%s\0' "$ROOT/hack/nodes/join" "$(printf '%s/daemons:' "${folders[@]}")"
  fi
  printf '%s\0' "${@:2}"
}

# node_daemon DAEMON NODE COMMAND…: starts it on the node, as part of it.
node_daemon() {
  local daemon=$1 node=$2 command
  shift 2
  mapfile -t -d '' command < <(joined "$node" nsenter --target "$(node_holder "$node")" --mount --uts --net -- "$@")
  start_daemon "$(node_pid "$daemon" "$node")" "$(node_log "$daemon" "$node")" "${command[@]}"
}

# boot_node NODE: its namespaces, cgroup and network.
boot_node() {
  local folder=$nodes_dir/$1 command
  make_cgroup "$1"
  mkdir -p "$folder"
  rm -f "$folder/booted" "$folder/connected"
  mapfile -t -d '' command < <(joined "$1" unshare --mount --uts --net --propagation slave "$ROOT/hack/nodes/boot" "$folder" "node-$1")
  start_daemon "$(node_pid node "$1")" "$(node_log node "$1")" "${command[@]}"
  wait_for 20 "node-$1 to have its mounts" test -e "$folder/booted" || { show_log "$(node_log node "$1")"; die "node-$1 does not start"; }
  connect_node "$1"
  : >"$folder/connected"
}

# node_is_whole NODE: whether it has its namespaces and its network. A start that was cut off leaves one that has not.
node_is_whole() {
  node_holder "$1" >/dev/null && [[ -e $nodes_dir/$1/connected ]]
}

# remove_cable NODE: the kernel takes it away with the node's network, but only a while after the last process.
remove_cable() {
  local cable
  cable=$(node_cgroup "$1")
  [[ ! -e /sys/class/net/$cable ]] || ip link delete "$cable" 2>/dev/null || true
  [[ ! -e /sys/class/net/$cable ]]
}

connect_node() {
  local cable
  cable=$(node_cgroup "$1")
  ip link add "$cable" type veth peer name eth0 netns "$(node_holder "$1")"
  ip link set "$cable" master "$(bridge)" up
  on_node "$1" ip link set lo up
  on_node "$1" ip address add "$(node_address "$1")/24" dev eth0
  on_node "$1" ip link set eth0 up
  on_node "$1" ip route add default via "$(bridge_address)"
  on_node "$1" sysctl -q -w net.ipv4.ip_forward=1
}

# Nodes reach each other's pods directly, so the machine forwards nothing.
route_pods() {
  local node other
  for ((node = 1; node <= nodes; node++)); do
    ip route replace "$(pod_range "$node")" via "$(node_address "$node")"
    for ((other = 1; other <= nodes; other++)); do
      ((other == node)) || on_node "$node" ip route replace "$(pod_range "$other")" via "$(node_address "$other")"
    done
  done
}

# has_capability BIT: whether this process has it.
has_capability() {
  local mask
  mask=$(sed -n 's/^CapEff:\t//p' /proc/self/status)
  (((16#$mask >> $1) & 1))
}

write_node_files() {
  local folder=$nodes_dir/$1 kind restrict=false
  kind=$(cgroup_kind)
  mkdir -p "$folder/root/etc/cni/net.d"
  # Without CAP_SYS_RESOURCE runc cannot lower the score, and dies of it.
  has_capability 24 || restrict=true
  # Every socket is the node's own: /run/containerd is. NRI has its elsewhere, and nobody uses it.
  write_file "$folder/containerd.toml" <<END
version = 3
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = $restrict
  netns_mounts_under_state_dir = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ['/usr/lib/cni', '/opt/cni/bin']
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = 'io.containerd.runc.v2'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      SystemdCgroup = $([[ $kind == systemd ]] && echo true || echo false)
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = 'localhost/pause:dev'
[plugins.'io.containerd.nri.v1.nri']
  disable = true
[plugins.'io.containerd.internal.v1.opt']
  path = '/var/lib/containerd/opt'
END
  # Each pod has a cable of its own to the node, which routes: there is no bridge past which answers of a Service could go.
  write_file "$folder/root/etc/cni/net.d/10-pods.conflist" <<END
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "ptp", "ipMasq": false, "ipam": {"type": "host-local", "ranges": [[{"subnet": "$(pod_range "$1")"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
END
  # Pods ask CoreDNS, which knows the cluster and nothing else.
  write_file "$folder/resolv.conf" </dev/null
  write_file "$folder/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $(node_address "$1")
tlsCertFile: $pki/kubelet-$1-$(node_address "$1").crt
tlsPrivateKeyFile: $pki/kubelet-$1-$(node_address "$1").key
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $pki/ca.crt}
authorization: {mode: Webhook}
clusterDNS: [$cluster_dns]
clusterDomain: cluster.local
resolvConf: $folder/resolv.conf
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
volumePluginDir: /var/lib/kubelet/volume-plugins
cgroupDriver: $([[ $kind == systemd ]] && echo systemd || echo cgroupfs)
cgroupRoot: /$(node_cgroup "$1")
enforceNodeAllocatable: []
failSwapOn: false
# All nodes share the machine's disk: what others fill is no reason to evict pods or to remove images, which come from no registry.
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}
imageGCHighThresholdPercent: 100
$([[ $kind != v1 ]] || echo 'failCgroupV1: false')
END
}

# write_node_kubeconfig FILE CERTIFICATE DAEMON NODE: that daemon is stopped when it has read another one.
write_node_kubeconfig() {
  local before
  before=$(cat "$1" 2>/dev/null) || true
  write_kubeconfig "$1" "$2" "$(<"$dir/port")" "$(bridge_address)"
  [[ $(<"$1") == "$before" ]] || stop_daemon "$(node_pid "$3" "$4")"
}

containerd_answers() { on_node "$1" "$bin/ctr" version >/dev/null 2>&1; }

start_containerd() {
  if ! daemon_running "$(node_pid containerd "$1")"; then
    node_daemon containerd "$1" env "PATH=$bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
      "$bin/containerd" --config "$nodes_dir/$1/containerd.toml" --log-level warn
  fi
  wait_for 30 "containerd of node-$1" alive_and "containerd-$1" containerd_answers "$1" ||
    { show_log "$(node_log containerd "$1")"; die "containerd of node-$1 does not start"; }
}

# load_on NODE FILE…: imports the images that the node does not have.
load_on() {
  local node=$1 file present
  shift
  present=$(on_node "$node" "$bin/ctr" --namespace k8s.io images list 2>/dev/null | awk '{ print $1, $3 }')
  for file in "$@"; do
    ! grep -qxF "$(tar -xOf "$file" index.json |
      jq -r '.manifests[0] | "\(.annotations["io.containerd.image.name"]) \(.digest)"')" <<<"$present" || continue
    say "loading $(basename "$file") on node-$node"
    # What it says when all is well is about cgroups.
    on_node "$node" "$bin/ctr" --namespace k8s.io images import "$file" >"$nodes_dir/$node/load.log" 2>&1 ||
      { show_log "$nodes_dir/$node/load.log"; die "$file cannot be loaded"; }
  done
}

# start_node NODE IMAGE…: everything of it. What is left of one that is not whole is ended first.
start_node() {
  local node=$1 folder=$nodes_dir/$1
  shift
  node_is_whole "$node" || end_node "$node"
  write_node_files "$node"
  node_is_whole "$node" || boot_node "$node"
  write_node_kubeconfig "$folder/kubelet.kubeconfig" "kubelet-$node" kubelet "$node"
  write_node_kubeconfig "$folder/kube-proxy.kubeconfig" kube-proxy kube-proxy "$node"
  start_containerd "$node"
  load_on "$node" "$@"
  daemon_running "$(node_pid kube-proxy "$node")" ||
    node_daemon kube-proxy "$node" "$bin/kube-proxy" --kubeconfig "$folder/kube-proxy.kubeconfig" --hostname-override "node-$node" \
      --proxy-mode nftables --cluster-cidr "10.$network.128.0/17" --conntrack-max-per-core 0
  daemon_running "$(node_pid kubelet "$node")" || {
    date -u +%FT%TZ | write_file "$folder/started"
    node_daemon kubelet "$node" "$bin/kubelet" --config "$folder/kubelet.yaml" --kubeconfig "$folder/kubelet.kubeconfig" \
      --hostname-override "node-$node" --node-ip "$(node_address "$node")" --cert-dir /var/lib/kubelet/pki
  }
}

# node_is_ready NODE: and has said so since its kubelet was started.
node_is_ready() {
  local ready
  ready=$(kubectl get node "node-$1" -o jsonpath='{range .status.conditions[?(@.type=="Ready")]}{.status} {.lastHeartbeatTime}{end}' 2>/dev/null) &&
    [[ $ready == True\ * && ! ${ready#* } < $(<"$nodes_dir/$1/started") ]]
}

# end_node NODE: its pods get a moment to end, then everything of it is gone.
end_node() {
  local daemon
  # It would start anew what ends.
  stop_daemon "$(node_pid kubelet "$1")" 5
  signal_all TERM "$1" kubepods || wait_for 5 "the pods of node-$1 to end" no_pods "$1" || true
  for daemon in kube-proxy containerd; do stop_daemon "$(node_pid "$daemon" "$1")" 5; done
  wait_for 20 "the processes of node-$1 to end" signal_all KILL "$1" || die "the processes of node-$1 do not end"
  wait_for 10 "the cgroup of node-$1 to go" remove_cgroup "$1" || die "the cgroup of node-$1 cannot be removed"
  wait_for 10 "the cable of node-$1 to go" remove_cable "$1" || die "the cable of node-$1 cannot be removed"
  stop_daemon "$(node_pid node "$1")"
}

no_pods() { [[ -z $(processes_of "$1" kubepods) ]]; }

# --- all of them

need_for_nodes() {
  ((EUID == 0)) || die "nodes need root"
  need ip nft iptables conntrack runc haproxy nsenter unshare jq sysctl busybox
  [[ -x /usr/lib/cni/ptp || -x /opt/cni/bin/ptp ]] || die "the CNI plugins are not installed; hack/setup installs what is missing"
}

make_node_pki() {
  local node
  certificate "apiserver-$(bridge_address)" /CN=kube-apiserver ca "$api_server_names,IP:$(bridge_address)"
  certificate kubelet-client /CN=kube-apiserver-kubelet-client ca
  certificate scheduler /CN=system:kube-scheduler ca
  certificate kube-proxy /CN=system:kube-proxy ca
  for ((node = 1; node <= nodes; node++)); do
    certificate "kubelet-$node" "/O=system:nodes/CN=system:node:node-$node" ca
    certificate "kubelet-$node-$(node_address "$node")" "/CN=node-$node" ca "DNS:node-$node,IP:$(node_address "$node")"
  done
}

# node_api_flags: what the API server is told about nodes.
node_api_flags() {
  printf '%s\n' --advertise-address "$(bridge_address)" \
    --tls-cert-file "$pki/apiserver-$(bridge_address).crt" --tls-private-key-file "$pki/apiserver-$(bridge_address).key" \
    --kubelet-client-certificate "$pki/kubelet-client.crt" --kubelet-client-key "$pki/kubelet-client.key" \
    --kubelet-certificate-authority "$pki/ca.crt" --kubelet-preferred-address-types InternalIP \
    --enable-aggregator-routing=true # it has no way to the addresses of Services, only to those of pods
}

start_api_proxy() {
  local port
  port=$(<"$dir/port")
  # A watch may be silent for long.
  write_file "$nodes_dir/api-proxy.cfg" <<END
defaults
  mode tcp
  timeout connect 5s
  timeout client 1d
  timeout server 1d
frontend nodes
  bind $(bridge_address):$port
  default_backend api
backend api
  server api 127.0.0.1:$port
END
  start_daemon "$(pid_of api-proxy)" "$(log_of api-proxy)" haproxy -db -f "$nodes_dir/api-proxy.cfg"
}

start_node_control_plane() {
  daemon_running "$(pid_of api-proxy)" || start_api_proxy
  daemon_running "$(pid_of kube-scheduler)" && return 0
  say "starting kube-scheduler"
  write_kubeconfig "$dir/scheduler.kubeconfig" scheduler "$(<"$dir/port")"
  # As the controller-manager: one only, which serves nothing.
  daemon kube-scheduler "$bin/kube-scheduler" --kubeconfig "$dir/scheduler.kubeconfig" --secure-port 0 --leader-elect=false
}

dns_answers() {
  on_node 1 timeout 2 busybox nslookup kubernetes.default.svc.cluster.local "$cluster_dns" >/dev/null 2>&1
}

# prepare_nodes: what must be there before the API server starts.
prepare_nodes() {
  need_for_nodes
  link_tools "kube-$minor" kube-scheduler kubelet kube-proxy
  link_tools containerd containerd containerd-shim-runc-v2 ctr
  mkdir -p "$nodes_dir"
  write_file "$nodes_dir/count" <<<"$nodes"
  claim_network
  make_bridge
  make_node_pki
}

start_nodes() {
  local node starting=() images
  # They are the same for all instances and commits, so is their time.
  SOURCE_DATE_EPOCH=0 "$ROOT/hack/image" --out "$DCV_CACHE/images" pause coredns busybox >/dev/null || die "the images of the nodes could not be made"
  images=("$DCV_CACHE/images"/{pause,coredns,busybox}.tar)
  start_node_control_plane
  for node in $(node_numbers); do
    ((node <= nodes)) || remove_node "$node"
  done
  say "starting $nodes node(s) in 10.$network.0.0/16"
  for ((node = 1; node <= nodes; node++)); do
    start_node "$node" "${images[@]}" &
    starting+=($!)
  done
  for node in "${starting[@]}"; do wait "$node" || die "not every node starts"; done
  route_pods
  kubectl apply --server-side --force-conflicts -f "$ROOT/hack/nodes/cluster.yaml" >/dev/null
  for ((node = 1; node <= nodes; node++)); do
    wait_for 90 "node-$node to be Ready" alive_and "kubelet-$node" node_is_ready "$node" ||
      { show_log "$(node_log kubelet "$node")" 40; die "node-$node does not get Ready"; }
  done
  wait_for 90 "the cluster's DNS" dns_answers ||
    { kubectl get --all-namespaces pods,events >&2 || true; die "the cluster's DNS does not answer"; }
}

# remove_node NODE: also from the cluster, as one that does not come back.
remove_node() {
  say "removing node-$1"
  end_node "$1"
  kubectl delete node "node-$1" --ignore-not-found >/dev/null
  rm -rf --one-file-system "${nodes_dir:?}/$1"
}

# nodes_running: whether everything of $nodes nodes runs, and no more.
nodes_running() {
  local node daemon numbers
  numbers=$(node_numbers | sort -n | xargs)
  [[ $numbers == "$(seq -s ' ' 1 "$nodes")" ]] || return 1
  ((nodes)) || return 0
  for daemon in "${node_control_plane[@]}"; do
    daemon_running "$(pid_of "$daemon")" || return 1
  done
  for node in $numbers; do
    for daemon in "${node_daemons[@]}"; do
      daemon_running "$(node_pid "$daemon" "$node")" || return 1
    done
    node_is_ready "$node" || return 1
  done
}

# stop_nodes: everything that start_nodes and prepare_nodes have made, but files.
stop_nodes() {
  local node daemon ending=()
  network_noted || return 0
  for node in $(node_numbers); do
    ! node_holder "$node" >/dev/null || say "stopping node-$node"
    end_node "$node" &
    ending+=($!)
  done
  for node in "${ending[@]}"; do wait "$node"; done
  for daemon in "${node_control_plane[@]}"; do stop_daemon "$(pid_of "$daemon")"; done
  # Routes and what is left of cables go with it.
  [[ ! -e /sys/class/net/$(bridge) ]] || ip link delete "$(bridge)"
}

# drop_nodes: as if there had never been any; the API server runs.
drop_nodes() {
  local node
  network_noted || return 0
  for node in $(node_numbers); do remove_node "$node"; done
  stop_nodes
  forget_network
  rm -rf --one-file-system "$nodes_dir"
}

# forget_network: others may have its addresses.
forget_network() {
  ! network_noted || is_of_another "/run/dcv-operator/networks/$network" || rm -f "/run/dcv-operator/networks/$network"
}

node_status() {
  local node daemon rc=0
  for daemon in "${node_control_plane[@]}"; do
    print_status "$daemon" "$(pid_of "$daemon")" || rc=3
  done
  for ((node = 1; node <= $(nodes_noted); node++)); do
    for daemon in "${node_daemons[@]}"; do
      print_status "$daemon-$node" "$(node_pid "$daemon" "$node")" || rc=3
    done
  done
  return "$rc"
}
