{{- /* Variables of the service. Every name is a setting of `revocation config`; a test holds them equal. */}}
{{- define "revocation.env" -}}
{{- $settings := dict
  "listen" (printf "%s:%s" .Values.service.bindHost (include "revocation.grpcPort" .))
  "http_listen" (printf "%s:%s" .Values.service.bindHost (include "revocation.httpPort" .))
  "http_insecure" (not .Values.settings.http_tls_cert)
  "redis_url" (include "revocation.redisUrl" .)
  "secret_file" "/etc/revocation/master/secret"
  "drain_s" .Values.drainSeconds
-}}
{{- if eq .Values.redis.mode "bundled" }}{{ $_ := set $settings "ack" "fsynced" }}{{ end -}}
{{- if include "revocation.encrypted" . }}
{{- $_ := set $settings "tls_cert" "/etc/revocation/tls/tls.crt" }}
{{- $_ := set $settings "tls_key" "/etc/revocation/tls/tls.key" }}
{{- else }}
{{- $_ := set $settings "insecure" true }}
{{- end }}
{{- if include "revocation.mutual" . }}{{ $_ := set $settings "client_ca" "/etc/revocation/client-ca/ca.crt" }}{{ end }}
{{- if eq .Values.auth.mode "roles" }}
{{- $_ := set $settings "roles" "/etc/revocation/roles/roles.json" }}
{{- else }}
{{- $_ := set $settings "allow_anonymous" true }}
{{- end }}
{{- if .Values.realms }}{{ $_ := set $settings "realms" "/etc/revocation/realms/realms.json" }}{{ end }}
{{- with .Values.redis.username }}{{ $_ := set $settings "redis_username" . }}{{ end }}
{{- if include "revocation.redisPasswordSecret" . }}{{ $_ := set $settings "redis_password_file" "/etc/revocation/redis/password" }}{{ end }}
{{- if .Values.redis.sentinel.passwordSecret }}{{ $_ := set $settings "redis_sentinel_password_file" "/etc/revocation/redis/sentinel-password" }}{{ end }}
{{- if .Values.redis.tls.caSecret }}{{ $_ := set $settings "redis_ca" "/etc/revocation/redis/ca.crt" }}{{ end }}
{{- if .Values.redis.tls.clientSecret }}
{{- $_ := set $settings "redis_cert" "/etc/revocation/redis/tls.crt" }}
{{- $_ := set $settings "redis_key" "/etc/revocation/redis/tls.key" }}
{{- end }}
- name: REVOCATION_REPLICA_ID
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- range $name, $value := mergeOverwrite $settings .Values.settings }}
- name: REVOCATION_{{ upper $name }}
  {{- /* Numbers of values files are floats: no 1e+06. */}}
  value: {{ if kindIs "float64" $value }}{{ if eq (float64 (int64 $value)) $value }}{{ printf "%d" (int64 $value) | quote }}{{ else }}{{ printf "%g" $value | quote }}{{ end }}{{ else }}{{ toString $value | quote }}{{ end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "revocation.volumes" -}}
{{- /* Readable by the group of the pod, by nobody else. */}}
- name: master
  secret:
    secretName: {{ include "revocation.masterSecret" . }}
    defaultMode: 0440
{{- if include "revocation.encrypted" . }}
- name: tls
  secret:
    secretName: {{ include "revocation.tlsSecret" . }}
    defaultMode: 0440
    items:
      - {key: tls.crt, path: tls.crt}
      - {key: tls.key, path: tls.key}
{{- end }}
{{- if include "revocation.mutual" . }}
- name: client-ca
  secret:
    secretName: {{ include "revocation.clientCaSecret" . }}
    defaultMode: 0440
    items:
      - {key: ca.crt, path: ca.crt}
{{- end }}
{{- if eq .Values.auth.mode "roles" }}
- name: roles
  configMap:
    name: {{ default (printf "%s-roles" (include "revocation.fullname" .)) .Values.auth.existingRoles }}
{{- end }}
{{- if .Values.realms }}
- name: realms
  configMap:
    name: {{ include "revocation.fullname" . }}-realms
{{- end }}
{{- if include "revocation.redisSources" . }}
- name: redis
  projected:
    defaultMode: 0440
    sources:
      {{- include "revocation.redisSources" . | trim | nindent 6 }}
{{- end }}
{{- end }}

{{- define "revocation.redisSources" -}}
{{- with include "revocation.redisPasswordSecret" . }}
- secret:
    name: {{ . }}
    items: [{key: password, path: password}]
{{- end }}
{{- with .Values.redis.sentinel.passwordSecret }}
- secret:
    name: {{ . }}
    items: [{key: password, path: sentinel-password}]
{{- end }}
{{- with .Values.redis.tls.caSecret }}
- secret:
    name: {{ . }}
    items: [{key: ca.crt, path: ca.crt}]
{{- end }}
{{- with .Values.redis.tls.clientSecret }}
- secret:
    name: {{ . }}
    items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]
{{- end }}
{{- end }}

{{- define "revocation.mounts" -}}
{{- range $volume := include "revocation.volumes" . | fromYamlArray }}
- name: {{ $volume.name }}
  mountPath: /etc/revocation/{{ $volume.name }}
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* One probe. Takes (context, name, path, name of the gRPC health service). */}}
{{- define "revocation.probe" -}}
{{- $context := index . 0 -}}
{{- if eq $context.Values.probes.kind "grpc" -}}
grpc:
  port: {{ include "revocation.grpcPort" $context }}
  service: {{ index . 3 | quote }}
{{- else -}}
httpGet:
  path: {{ index . 2 }}
  port: http
  {{- if $context.Values.settings.http_tls_cert }}
  scheme: HTTPS
  {{- end }}
{{- end }}
{{ toYaml (index $context.Values.probes (index . 1)) }}
{{- end }}
