# shellcheck shell=bash
# Writes OCI image archives: a tar of a few JSON files and layers, so it takes no builder and no daemon. Sourced by hack/image.
#
# The same content gives the same archive, byte for byte: order, times, owners and modes of files are set here, times by
# SOURCE_DATE_EPOCH.

# oci_pack FOLDER FILE: packs what is in FOLDER as a layer of root's files, FILE, and notes the hash of its content in FILE.diff.
# Directories and programs are for all to read, only the owner writes.
oci_pack() {
  local names
  mapfile -t names < <(cd "$1" && find . -mindepth 1 -maxdepth 1 -printf '%P\n' | LC_ALL=C sort)
  tar --create --file - --format gnu --sort name --mtime "@$SOURCE_DATE_EPOCH" --owner 0 --group 0 --numeric-owner \
    --mode 'u+rwX,go+rX,go-w' --directory "$1" -- "${names[@]}" | oci_compress "$2"
}

# oci_compress FILE: stores the tar on stdin as the layer FILE, and the hash of the tar in FILE.diff.
oci_compress() {
  rm -f "$1.diff"
  tee >(sha256sum | cut -d ' ' -f 1 >"$1.diff") | gzip -n -9 >"$1.part"
  # `tee` has ended; its reader may not have.
  wait_for 60 "a checksum" test -s "$1.diff"
  mv -f "$1.part" "$1"
}

# oci_blob FOLDER FILE: makes FILE a blob of the archive in FOLDER, and prints its descriptor.
oci_blob() {
  local hash
  hash=$(sha256sum "$2" | cut -d ' ' -f 1)
  ln -f "$2" "$1/blobs/sha256/$hash" 2>/dev/null || cp "$2" "$1/blobs/sha256/$hash"
  jq -nc --arg digest "sha256:$hash" --argjson size "$(stat -c %s "$2")" '{digest: $digest, size: $size}'
}

# oci_archive FILE NAME CONFIG LAYER…: writes the image NAME, which CONFIG (JSON) says how to run, of layers that were packed.
oci_archive() {
  local file=$1 name=$2 config=$3 folder layer layers='[]' diffs='[]' blob
  shift 3
  folder=$(mktemp -d "$file.XXXXXX")
  mkdir -p "$folder/blobs/sha256"
  for layer in "$@"; do
    blob=$(oci_blob "$folder" "$layer")
    layers=$(jq -c --argjson blob "$blob" '. + [{mediaType: "application/vnd.oci.image.layer.v1.tar+gzip"} + $blob]' <<<"$layers")
    diffs=$(jq -c --arg diff "sha256:$(<"$layer.diff")" '. + [$diff]' <<<"$diffs")
  done
  jq -nc --arg created "$(date -u -d "@$SOURCE_DATE_EPOCH" +%FT%TZ)" --arg architecture "$(oci_architecture)" \
    --argjson config "$config" --argjson diffs "$diffs" \
    '{created: $created, architecture: $architecture, os: "linux", config: $config, rootfs: {type: "layers", diff_ids: $diffs}}' >"$folder/config"
  jq -nc --argjson config "$(oci_blob "$folder" "$folder/config")" --argjson layers "$layers" \
    '{schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json",
      config: ({mediaType: "application/vnd.oci.image.config.v1+json"} + $config), layers: $layers}' >"$folder/manifest"
  # containerd and Docker read the first annotation, the others the second.
  jq -nc --arg name "$name" --argjson manifest "$(oci_blob "$folder" "$folder/manifest")" \
    '{schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests: [
      {mediaType: "application/vnd.oci.image.manifest.v1+json"} + $manifest +
      {annotations: {"io.containerd.image.name": $name, "org.opencontainers.image.ref.name": $name}}]}' >"$folder/index.json"
  echo '{"imageLayoutVersion":"1.0.0"}' >"$folder/oci-layout"
  tar --create --file "$file.part" --format gnu --sort name --mtime "@$SOURCE_DATE_EPOCH" --owner 0 --group 0 --numeric-owner \
    --mode 'u+rwX,go+rX,go-w' --hard-dereference --directory "$folder" blobs index.json oci-layout
  mv -f "$file.part" "$file"
  rm -rf "$folder"
}

# oci_architecture: as OCI calls that of this machine.
oci_architecture() {
  case $(uname -m) in
  x86_64) echo amd64 ;;
  aarch64) echo arm64 ;;
  *) uname -m ;;
  esac
}

# oci_size FILE: bytes of the compressed layers in an archive, which is what a pull costs.
oci_size() {
  local digest
  digest=$(tar -xOf "$1" index.json | jq -r '.manifests[0].digest')
  tar -xOf "$1" "blobs/sha256/${digest#sha256:}" | jq '[.layers[].size] | add'
}
