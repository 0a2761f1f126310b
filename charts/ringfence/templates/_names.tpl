{{/* The names of control-plane/src/kubernetes/names.rs: fixed, because custom resources, policies and sidecars of a cluster know one Ringfence. */}}

{{- define "ringfence.labels" -}}
app.kubernetes.io/name: ringfence
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "ringfence.selector" -}}
app.kubernetes.io/name: ringfence
app.kubernetes.io/component: control-plane
{{- end }}

{{/* As the API server calls our controllers. */}}
{{- define "ringfence.user" -}}
system:serviceaccount:{{ .Release.Namespace }}:ringfence-control-plane
{{- end }}

{{- define "ringfence.image" -}}
{{- $image := index .Values.image .name -}}
{{- $name := printf "%s/%s" .Values.image.registry $image.repository -}}
{{- if $image.digest -}}
{{ printf "%s@%s" $name $image.digest }}
{{- else -}}
{{ printf "%s:%s" $name (default .Chart.AppVersion $image.tag) }}
{{- end -}}
{{- end }}

{{- define "ringfence.proxyImage" -}}
{{ include "ringfence.image" (merge (dict "name" "proxy") .) }}
{{- end }}

{{/* Where sidecars find the control plane. Without redirect rules the pod's resolver is the sidecar, which knows no names before it has policy. */}}
{{- define "ringfence.controlPlane" -}}
{{- if eq .Values.injection.capture "explicit" -}}
{{ include "ringfence.socket" (list (required "controlPlane.clusterIP must be given where injection.capture is explicit: sidecars find the control plane by address then" .Values.controlPlane.clusterIP) 15010) }}
{{- else -}}
ringfence-control-plane.{{ .Release.Namespace }}.svc:15010
{{- end -}}
{{- end }}

{{/* An address and a port, as one word. */}}
{{- define "ringfence.socket" -}}
{{- $address := index . 0 -}}
{{ if contains ":" $address }}[{{ $address }}]{{ else }}{{ $address }}{{ end }}:{{ index . 1 }}
{{- end }}

{{/* Addresses of the cluster's DNS, as JSON: those that are named, else that of kube-dns as it is found at an installation or an upgrade. */}}
{{- define "ringfence.clusterDns" -}}
{{- $found := dig "spec" "clusterIP" "" (lookup "v1" "Service" "kube-system" "kube-dns") -}}
{{- if or .Values.injection.clusterDns (has $found (list "" "None")) -}}
{{ toJson .Values.injection.clusterDns }}
{{- else -}}
{{ toJson (list $found) }}
{{- end -}}
{{- end }}

{{/* As a sidecar's bootstrap has it, or its beginning, where each control plane finds out the cluster's DNS for itself. */}}
{{- define "ringfence.resolvers" -}}
{{- $addresses := fromJsonArray (include "ringfence.clusterDns" .) -}}
"resolvers":["
{{- range $i, $address := $addresses }}
{{- if $i }}","{{ end }}{{ include "ringfence.socket" (list $address 53) }}
{{- end }}
{{- if $addresses }}"]{{ end }}
{{- end }}

{{/* Where tenants' pods are, whoever made the namespace. */}}
{{- define "ringfence.tenants" -}}
namespaceSelector:
  matchExpressions:
    - { key: ringfence.dev/tenant, operator: Exists }
{{- end }}

{{/*
A policy and its binding, which refuses. The API server judges by it itself, whether or not anybody of ours is there. What it says stands in
the template of its `name`. `kyverno`: and the same for Kyverno, whose ValidatingPolicy takes that spec as it is.
*/}}
{{- define "ringfence.policy" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: {{ .name }}
  labels: {{- include "ringfence.labels" .root | nindent 4 }}
spec:
  {{- include .name .root | nindent 2 }}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ .name }}
  labels: {{- include "ringfence.labels" .root | nindent 4 }}
spec:
  policyName: {{ .name }}
  validationActions: [Deny]
---
{{- if and .kyverno .root.Values.kyverno.enabled }}
apiVersion: policies.kyverno.io/v1
kind: ValidatingPolicy
metadata:
  name: {{ .name }}
  labels: {{- include "ringfence.labels" .root | nindent 4 }}
spec:
  validationActions: [{{ .root.Values.kyverno.action }}]
  # Of pods alone: their templates have no sidecar yet.
  autogen: { podControllers: { controllers: [] } }
  {{- include .name .root | nindent 2 }}
---
{{- end }}
{{- end }}
