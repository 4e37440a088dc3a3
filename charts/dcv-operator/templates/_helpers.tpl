{{/* Name of the chart, as a label. */}}
{{- define "dcv-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* What the names of this release start with. */}}
{{- define "dcv-operator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "dcv-operator.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
Name of an object: `include "dcv-operator.object" (list . "broker-verifier")`. At most 63 characters with the suffix whole;
where something is cut off, a digest of the whole takes its place, so that two long names do not become one.
*/}}
{{- define "dcv-operator.object" -}}
{{- $fullname := include "dcv-operator.fullname" (index . 0) -}}
{{- $suffix := index . 1 -}}
{{- $room := int (sub 62 (len $suffix)) -}}
{{- if gt (len $fullname) $room -}}
{{- $fullname = printf "%s-%s" ($fullname | trunc (int (sub $room 9)) | trimSuffix "-") (sha256sum $fullname | trunc 8) -}}
{{- end -}}
{{- printf "%s-%s" $fullname $suffix -}}
{{- end -}}

{{/* Labels that never change: `include "dcv-operator.selector" (list . "broker")`. */}}
{{- define "dcv-operator.selector" -}}
{{- $context := index . 0 -}}
app.kubernetes.io/name: {{ include "dcv-operator.name" $context }}
app.kubernetes.io/instance: {{ $context.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of an object: `include "dcv-operator.labels" (list . "broker")`. */}}
{{- define "dcv-operator.labels" -}}
{{- $context := index . 0 -}}
{{ include "dcv-operator.selector" . }}
app.kubernetes.io/part-of: dcv-operator
app.kubernetes.io/version: {{ $context.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $context.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $context.Chart.Name $context.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with $context.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
Labels of pods: `include "dcv-operator.podLabels" (list . "broker")`. None that changes with every version of the chart: pods
are replaced when something of theirs changes.
*/}}
{{- define "dcv-operator.podLabels" -}}
{{- $context := index . 0 -}}
{{ include "dcv-operator.selector" . }}
app.kubernetes.io/part-of: dcv-operator
{{- with $context.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- with (index $context.Values (index . 1)).podLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Name of a component's ServiceAccount. Fixed, as policies name it; a namespace holds one release. */}}
{{- define "dcv-operator.account" -}}
{{- $component := index . 1 -}}
{{- (index (index . 0).Values $component).serviceAccount.name | default (printf "dcv-%s" $component) -}}
{{- end -}}

{{/* Namespace of the agents' pods. */}}
{{- define "dcv-operator.agentNamespace" -}}
{{- .Values.agent.namespace | default .Release.Namespace -}}
{{- end -}}

{{/* Name of a component's user, as the API server knows it. */}}
{{- define "dcv-operator.user" -}}
{{- $context := index . 0 -}}
{{- $namespace := $context.Release.Namespace -}}
{{- if eq (index . 1) "agent" -}}
{{- $namespace = include "dcv-operator.agentNamespace" $context -}}
{{- end -}}
{{- printf "system:serviceaccount:%s:%s" $namespace (include "dcv-operator.account" .) -}}
{{- end -}}

{{/* Who agents are, as a CEL expression over the request. */}}
{{- define "dcv-operator.isAgent" -}}
request.userInfo.username == "{{ include "dcv-operator.user" (list . "agent") }}"
{{- if .Values.hosts.enabled }}
|| request.userInfo.username.startsWith("system:serviceaccount:{{ .Values.hosts.namespace }}:")
{{- end }}
{{- end -}}

{{/*
Name of the agent's server, as a CEL expression: the node in a pod's token, or the account of a host outside the cluster.
Empty: neither.
*/}}
{{- define "dcv-operator.agentServer" -}}
{{- if .Values.hosts.enabled -}}
request.userInfo.username.startsWith("system:serviceaccount:{{ .Values.hosts.namespace }}:")
? (request.userInfo.username.split(":")[3].startsWith("host-") ? request.userInfo.username.split(":")[3] : "")
: request.userInfo.?extra[?"authentication.kubernetes.io/node-name"][?0].orValue("")
{{- else -}}
request.userInfo.?extra[?"authentication.kubernetes.io/node-name"][?0].orValue("")
{{- end -}}
{{- end -}}

{{/* The binding without which a policy does nothing: `include "dcv-operator.binding" (list . "agent-leases")`. */}}
{{- define "dcv-operator.binding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ include "dcv-operator.object" . }}
  labels:
    {{- include "dcv-operator.labels" (list (index . 0) "policy") | nindent 4 }}
spec:
  policyName: {{ include "dcv-operator.object" . }}
  validationActions: [Deny]
{{- end -}}

{{/* Subjects of the agents' rights. */}}
{{- define "dcv-operator.agentSubjects" -}}
- kind: ServiceAccount
  name: {{ include "dcv-operator.account" (list . "agent") }}
  namespace: {{ include "dcv-operator.agentNamespace" . }}
{{- if .Values.hosts.enabled }}
- kind: Group
  apiGroup: rbac.authorization.k8s.io
  name: system:serviceaccounts:{{ .Values.hosts.namespace }}
{{- end }}
{{- end -}}

{{/* A component's image: its own settings before the common ones, a digest before a tag. */}}
{{- define "dcv-operator.image" -}}
{{- $context := index . 0 -}}
{{- $own := (index $context.Values (index . 1)).image -}}
{{- $common := $context.Values.image -}}
{{- $registry := $own.registry | default $context.Values.global.imageRegistry | default $common.registry -}}
{{- $repository := $own.repository | default $common.repository -}}
{{- $digest := $own.digest -}}
{{- if and (not $digest) (not $own.repository) (not $own.tag) -}}
{{- $digest = $common.digest -}}
{{- end -}}
{{- $tag := $own.tag | default $common.tag | default $context.Chart.AppVersion -}}
{{- if $registry -}}{{- printf "%s/" $registry -}}{{- end -}}
{{- $repository -}}
{{- if $digest -}}{{- printf "@%s" $digest -}}{{- else -}}{{- printf ":%s" $tag -}}{{- end -}}
{{- end -}}

{{- define "dcv-operator.pullPolicy" -}}
{{- (index (index . 0).Values (index . 1)).image.pullPolicy | default (index . 0).Values.image.pullPolicy -}}
{{- end -}}

{{- define "dcv-operator.pullSecrets" -}}
{{- with concat .Values.global.imagePullSecrets .Values.imagePullSecrets | uniq }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/*
Settings as entries of a ConfigMap, whose names are the environment variables of the flags: `newServers` is `--new-servers`
is DCV_NEW_SERVERS. What is null or empty is left to the program. `include "dcv-operator.settings" .Values.broker.settings`.
*/}}
{{- define "dcv-operator.settings" -}}
{{- range $name, $value := . }}
{{- if kindIs "slice" $value }}
{{- $value = join "," $value }}
{{- end }}
{{- if not (or (kindIs "invalid" $value) (eq (toString $value) "")) }}
{{ include "dcv-operator.variable" $name }}: {{ include "dcv-operator.text" $value | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "dcv-operator.variable" -}}
{{- regexReplaceAll "[A-Z]" . "_${0}" | upper | printf "DCV_%s" -}}
{{- end -}}

{{/* Numbers of values are floating ones: large ones must not be written with an exponent. */}}
{{- define "dcv-operator.text" -}}
{{- if kindIs "float64" . -}}{{- int64 . -}}{{- else -}}{{- . -}}{{- end -}}
{{- end -}}

{{/* Settings that every role has. `include "dcv-operator.commonSettings" (list . "broker" 8080)`. */}}
{{- define "dcv-operator.commonSettings" -}}
{{- $context := index . 0 -}}
DCV_NAMESPACE: {{ $context.Release.Namespace }}
DCV_HEALTH_ADDRESS: {{ printf "0.0.0.0:%d" (int (index $context.Values (index . 1)).healthPort) | quote }}
DCV_LOG_FORMAT: {{ $context.Values.logging.format }}
DCV_LOG_LEVEL: {{ (index $context.Values (index . 1)).logLevel | default $context.Values.logging.level | quote }}
{{- with $context.Values.watchNamespaces }}
DCV_WATCH_NAMESPACES: {{ join "," . | quote }}
{{- end }}
{{- with $context.Values.tracing.otlpEndpoint }}
OTEL_EXPORTER_OTLP_ENDPOINT: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* What a pod proves itself with: a token that expires, and is renewed. */}}
{{- define "dcv-operator.tokenVolume" -}}
- name: api-token
  projected:
    defaultMode: 0440
    sources:
    - serviceAccountToken:
        path: token
        expirationSeconds: 3600
    - configMap:
        name: kube-root-ca.crt
        items:
        - key: ca.crt
          path: ca.crt
    - downwardAPI:
        items:
        - path: namespace
          fieldRef:
            apiVersion: v1
            fieldPath: metadata.namespace
{{- end -}}

{{- define "dcv-operator.tokenMount" -}}
- name: api-token
  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
  readOnly: true
{{- end -}}

{{/* Parts of a pod that are the same for every component: `include "dcv-operator.pod" (list . "broker")`. */}}
{{- define "dcv-operator.pod" -}}
{{- $context := index . 0 -}}
{{- $values := index $context.Values (index . 1) -}}
serviceAccountName: {{ include "dcv-operator.account" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- if not (kindIs "invalid" $values.hostUsers) }}
hostUsers: {{ $values.hostUsers }}
{{- end }}
{{- with $values.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
{{- include "dcv-operator.pullSecrets" $context }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "dcv-operator.probes" -}}
{{- range $kind, $path := dict "startupProbe" "/livez" "livenessProbe" "/livez" "readinessProbe" "/readyz" }}
{{- with index $ $kind }}
{{ $kind }}:
  httpGet:
    path: {{ $path }}
    port: health
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What people add to a container: `include "dcv-operator.extra" (list . "broker" "extraVolumes")`, as it is, through tpl. */}}
{{- define "dcv-operator.extra" -}}
{{- with index (index (index . 0).Values (index . 1)) (index . 2) }}
{{ tpl (toYaml .) (index $ 0) }}
{{- end }}
{{- end -}}

{{/* Spread over nodes, and over zones, unless something is said. */}}
{{- define "dcv-operator.spread" -}}
{{- $context := index . 0 -}}
{{- $values := index $context.Values (index . 1) -}}
{{- if $values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- tpl (toYaml $values.topologySpreadConstraints) $context | nindent 2 }}
{{- else if gt (int $values.replicaCount) 1 }}
topologySpreadConstraints:
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- topologyKey: {{ . }}
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "dcv-operator.selector" $ | nindent 6 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Security of controller and broker: the level `restricted`. */}}
{{- define "dcv-operator.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "dcv-operator.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Secret with the brokers' certificate, by the mode. */}}
{{- define "dcv-operator.certificateSecret" -}}
{{- if eq .Values.tls.mode "existingSecret" -}}
{{- required "tls.existingSecret.name is needed with tls.mode existingSecret" .Values.tls.existingSecret.name -}}
{{- else if eq .Values.tls.mode "certManager" -}}
{{- include "dcv-operator.object" (list . "broker-tls") -}}
{{- else -}}
dcv-broker-certificate
{{- end -}}
{{- end -}}

{{/* Names the brokers' certificate is valid for. */}}
{{- define "dcv-operator.certificateNames" -}}
{{- $context := . -}}
{{- $names := list -}}
{{- range list "broker" "broker-verifier" "broker-gateway" -}}
{{- $service := include "dcv-operator.object" (list $context .) -}}
{{- $names = concat $names (list $service (printf "%s.%s" $service $context.Release.Namespace) (printf "%s.%s.svc" $service $context.Release.Namespace) (printf "%s.%s.svc.%s" $service $context.Release.Namespace $context.Values.clusterDomain)) -}}
{{- end -}}
{{- join "," (concat $names (list "localhost") .Values.tls.names | uniq) -}}
{{- end -}}

{{/* Labels that a user's Prometheus selects by, and ours. */}}
{{- define "dcv-operator.monitoringLabels" -}}
{{- $context := index . 0 -}}
{{- include "dcv-operator.labels" (list $context "monitoring") }}
{{- with (index . 1) }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
The groups of a file of alerts with the values of metrics.prometheusRule.alerts in them, without those that are not wanted:
`include "dcv-operator.alertGroups" (list . FILE)`. Braces of Prometheus stay as they are.
*/}}
{{- define "dcv-operator.alertGroups" -}}
{{- $rule := (index . 0).Values.metrics.prometheusRule -}}
{{- $groups := list -}}
{{- range $group := (index . 1).groups -}}
{{- $rules := list -}}
{{- range $group.rules -}}
{{- $values := index $rule.alerts .alert | required (printf "metrics.prometheusRule.alerts has no %s" .alert) -}}
{{- if $values.enabled -}}
{{- $text := toYaml . -}}
{{- range $name, $value := omit $values "enabled" "labels" -}}
{{- $text = replace (printf "${%s}" $name) (kindIs "string" $value | ternary $value (toJson $value)) $text -}}
{{- end -}}
{{- with regexFind `\$\{\w+\}` $text -}}
{{- fail (printf "metrics.prometheusRule.alerts: %s needs a value for %s" (index ($text | fromYaml) "alert") .) -}}
{{- end -}}
{{- $filled := fromYaml $text -}}
{{- $_ := set $filled "labels" (merge (dict) $values.labels $rule.alertLabels $filled.labels) -}}
{{- $rules = append $rules $filled -}}
{{- end -}}
{{- end -}}
{{- if $rules -}}
{{- $groups = append $groups (dict "name" $group.name "rules" $rules) -}}
{{- end -}}
{{- end -}}
{{- toYaml $groups -}}
{{- end -}}

{{/* Namespaced rights, once in each watched namespace: `include "dcv-operator.watched" (list . "broker" RULES SUBJECTS)`. */}}
{{- define "dcv-operator.watched" -}}
{{- $context := index . 0 -}}
{{- $component := index . 1 -}}
{{- $name := include "dcv-operator.object" (list $context $component) -}}
{{- range $namespace := $context.Values.watchNamespaces }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}
  namespace: {{ $namespace }}
  labels:
    {{- include "dcv-operator.labels" (list $context $component) | nindent 4 }}
rules:
{{ index $ 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ $namespace }}
  labels:
    {{- include "dcv-operator.labels" (list $context $component) | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $name }}
subjects:
{{ index $ 3 }}
{{- end }}
{{- end -}}

{{/* Whether agents share the network of their node: a DCV server asks on loopback who may enter. */}}
{{- define "dcv-operator.agentHostNetwork" -}}
{{- $own := .Values.agent.hostNetwork -}}
{{- if kindIs "invalid" $own -}}{{- eq .Values.agent.backend "dcv" -}}{{- else -}}{{- $own -}}{{- end -}}
{{- end -}}

{{/* The Pod Security level that agents need. */}}
{{- define "dcv-operator.agentLevel" -}}
{{- $isAsIs := not (or .Values.agent.containerSecurityContext .Values.agent.podSecurityContext .Values.agent.extraVolumes .Values.agent.hostPID) -}}
{{- if and (eq .Values.agent.backend "vnc") (ne (include "dcv-operator.agentHostNetwork" .) "true") (not .Values.agent.hostPort) $isAsIs -}}
baseline
{{- else -}}
privileged
{{- end -}}
{{- end -}}

{{/* The program in the images. */}}
{{- define "dcv-operator.program" -}}
/dcv-operator
{{- end -}}

{{/* Settings of agents that follow from how they are run. */}}
{{- define "dcv-operator.agentSettings" -}}
{{- $agent := .Values.agent -}}
DCV_BACKEND: {{ $agent.backend }}
DCV_HTTPS_ADDRESS: {{ printf "0.0.0.0:%d" (int $agent.httpsPort) | quote }}
{{- if eq $agent.backend "dcv" }}
DCV_HOST_ROOT: /host
DCV_HOST_COMMAND_PREFIX: {{ printf "%s chroot /host" (include "dcv-operator.program" .) | quote }}
{{- end }}
{{- end -}}

{{/* Which nodes get an agent. */}}
{{- define "dcv-operator.agentAffinity" -}}
{{- $agent := .Values.agent -}}
{{- $nodes := $agent.nodes | default (ternary "GpuOrLabel" "All" (eq $agent.backend "dcv")) -}}
{{- if $agent.affinity }}
affinity:
  {{- tpl (toYaml $agent.affinity) . | nindent 2 }}
{{- else if ne $nodes "All" }}
affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      # One of these terms is enough.
      nodeSelectorTerms:
      - matchExpressions:
        - key: dcv-operator.io/server
          operator: In
          values: ["true"]
      {{- if eq $nodes "GpuOrLabel" }}
      - matchExpressions:
        - key: nvidia.com/gpu.present
          operator: In
          values: ["true"]
      {{- end }}
{{- end }}
{{- end -}}

{{/* What an agent's container may: each capability with its reason in docs/install.md. */}}
{{- define "dcv-operator.agentContainerSecurity" -}}
{{- if .Values.agent.containerSecurityContext -}}
{{- toYaml .Values.agent.containerSecurityContext -}}
{{- else -}}
allowPrivilegeEscalation: false
privileged: false
runAsNonRoot: false
runAsUser: 0
runAsGroup: 0
capabilities:
  drop: [ALL]
{{- if eq .Values.agent.backend "dcv" }}
  add:
  - CHOWN # files for the DCV server and for owners
  - DAC_OVERRIDE # folders of owners, sockets and files of the host
  - NET_BIND_SERVICE # the verifier's port is below 1024
  - SETGID # folders for storage are made as their owner
  - SETUID
  - SYS_CHROOT # dcv, getent and the rest are the host's
readOnlyRootFilesystem: true
# A confined process may not speak to the host's system bus.
appArmorProfile:
  type: Unconfined
{{- else }}
  add:
  - CHOWN # folders and sockets of desktops
  - DAC_OVERRIDE # into folders that are their owners' alone
  - KILL # ends desktops
  - SETGID # programs run as their owners
  - SETUID
# Accounts, their home folders and what desktops write are in the image.
readOnlyRootFilesystem: false
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}
{{- end -}}

{{- define "dcv-operator.agentResources" -}}
{{- if .Values.agent.resources -}}
{{- toYaml .Values.agent.resources -}}
{{- else if eq .Values.agent.backend "dcv" -}}
requests:
  cpu: 20m
  memory: 32Mi
  ephemeral-storage: 16Mi
limits:
  memory: 256Mi
  ephemeral-storage: 256Mi
{{- else -}}
requests:
  cpu: 100m
  memory: 256Mi
  ephemeral-storage: 256Mi
limits:
  memory: 2Gi
{{- end -}}
{{- end -}}

{{- define "dcv-operator.agentUpdateStrategy" -}}
{{- if .Values.agent.updateStrategy -}}
{{- toYaml .Values.agent.updateStrategy -}}
{{- else if eq .Values.agent.backend "dcv" -}}
type: RollingUpdate
rollingUpdate:
  maxUnavailable: 10%
{{- else -}}
# The desktops of a pod end with it: drain its server first, then delete the pod.
type: OnDelete
{{- end -}}
{{- end -}}

{{/* Metrics, for whom networkPolicy.from.metrics names. The kubelet's probes come from the node and are let in anyway. */}}
{{- define "dcv-operator.metricsIngress" -}}
{{- $context := index . 0 -}}
- ports:
  - port: {{ (index $context.Values (index . 1)).healthPort }}
    protocol: TCP
  {{- with $context.Values.networkPolicy.from.metrics }}
  from:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* Names and the API server. */}}
{{- define "dcv-operator.commonEgress" -}}
- ports:
  - port: 53
    protocol: UDP
  - port: 53
    protocol: TCP
- ports:
  {{- range .Values.networkPolicy.apiServer.ports }}
  - port: {{ . }}
    protocol: TCP
  {{- end }}
  {{- with .Values.networkPolicy.apiServer.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- with .Values.networkPolicy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end -}}
