{{- define "revocation.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- /* At most 40 characters: suffixes and the hashes of pods still fit into 63. */}}
{{- define "revocation.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "revocation.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "revocation.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "revocation.selector" -}}
app.kubernetes.io/name: {{ include "revocation.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "revocation.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "revocation.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "revocation.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "revocation.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "revocation.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end }}

{{- define "revocation.masterSecret" -}}
{{- default (printf "%s-master" (include "revocation.fullname" .)) .Values.masterSecret.existingSecret -}}
{{- end }}

{{- define "revocation.valkey" -}}
{{ include "revocation.fullname" . }}-valkey
{{- end }}

{{- /* The secret that holds tls.crt and tls.key of the service. */}}
{{- define "revocation.tlsSecret" -}}
{{- if eq .Values.tls.mode "existingSecret" -}}
{{ .Values.tls.existingSecret }}
{{- else -}}
{{ include "revocation.fullname" . }}-tls
{{- end -}}
{{- end }}

{{- /* The secret whose ca.crt signs client certificates. */}}
{{- define "revocation.clientCaSecret" -}}
{{- default (include "revocation.tlsSecret" .) .Values.auth.clientCaSecret -}}
{{- end }}

{{- define "revocation.encrypted" -}}
{{- if ne .Values.tls.mode "insecure" }}true{{ end -}}
{{- end }}

{{- /* Whether callers have to show client certificates. */}}
{{- define "revocation.mutual" -}}
{{- if and (include "revocation.encrypted" .) (eq .Values.auth.mode "roles") (eq .Values.auth.clientCertificates "required") -}}
true
{{- end -}}
{{- end }}

{{- /* Whether the chart makes client certificates: with a CA of its own or through cert-manager. */}}
{{- define "revocation.makesClients" -}}
{{- if and (include "revocation.mutual" .) (not .Values.auth.clientCaSecret) (has .Values.tls.mode (list "selfSigned" "certManager")) -}}
true
{{- end -}}
{{- end }}

{{- /* The clients with certificates of the chart, `helm test` among them, as JSON. */}}
{{- define "revocation.clients" -}}
{{- $clients := list -}}
{{- if include "revocation.makesClients" . -}}
{{- $clients = default list .Values.auth.clients -}}
{{- if and .Values.helmTest.enabled (not .Values.helmTest.existingSecret) -}}
{{- $test := dict "name" "helm-test" "roles" (list "verifier" "revoker") "realms" (list .Values.helmTest.realm) -}}
{{- $clients = append $clients $test -}}
{{- end -}}
{{- end -}}
{{- toJson $clients -}}
{{- end }}

{{- /* The DNS name in the certificate of a client: its identity in the roles file. Takes (context, name). */}}
{{- define "revocation.clientIdentity" -}}
{{- $context := index . 0 -}}
{{ index . 1 }}.clients.{{ include "revocation.fullname" $context }}.{{ $context.Release.Namespace }}
{{- end }}

{{- /* The names of the service in its certificate, as JSON. `localhost` is for kubectl port-forward. */}}
{{- define "revocation.dnsNames" -}}
{{- $names := list "localhost" -}}
{{- range list (include "revocation.fullname" .) (printf "%s-headless" (include "revocation.fullname" .)) -}}
{{- $host := printf "%s.%s" . $.Release.Namespace -}}
{{- $names = concat $names (list . $host (printf "%s.svc" $host) (printf "%s.svc.%s" $host $.Values.clusterDomain)) -}}
{{- end -}}
{{- toJson (concat $names .Values.tls.dnsNames) -}}
{{- end }}

{{- /* Ports of the pods; the service may offer others (service.port). Above 1024: nobody is root. */}}
{{- define "revocation.grpcPort" -}}50051{{- end }}
{{- define "revocation.httpPort" -}}9464{{- end }}

{{- define "revocation.address" -}}
{{ include "revocation.fullname" . }}.{{ .Release.Namespace }}.svc:{{ .Values.service.port }}
{{- end }}

{{- define "revocation.redisUrl" -}}
{{- $redis := .Values.redis -}}
{{- $scheme := ternary "rediss" "redis" $redis.tls.enabled -}}
{{- if eq $redis.mode "bundled" -}}
redis://{{ include "revocation.valkey" . }}:6379/0
{{- else if eq $redis.mode "standalone" -}}
{{ $scheme }}://{{ first $redis.addresses }}/{{ int $redis.database }}
{{- else if eq $redis.mode "sentinel" -}}
{{ $scheme }}+sentinel://{{ join "," $redis.addresses }}/{{ $redis.sentinel.service }}/{{ int $redis.database }}
{{- else -}}
{{ $scheme }}+cluster://{{ join "," $redis.addresses }}
{{- end -}}
{{- end }}

{{- /* The secret that holds the password of the store under `password`; empty: there is none. */}}
{{- define "revocation.redisPasswordSecret" -}}
{{- if eq .Values.redis.mode "bundled" -}}
{{ include "revocation.valkey" . }}
{{- else -}}
{{ .Values.redis.passwordSecret }}
{{- end -}}
{{- end }}
