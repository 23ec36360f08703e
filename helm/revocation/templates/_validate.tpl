{{- /* What values.schema.json cannot say: rules between values. Every message names the value and what to do. */}}
{{- define "revocation.validate" -}}
{{- $faults := list -}}
{{- range list "tls" "auth" "redis" "scale" "settings" -}}
{{- $found := include (printf "revocation.validate.%s" .) $ | trim -}}
{{- if $found }}{{ $faults = append $faults $found }}{{ end -}}
{{- end -}}
{{- if $faults }}{{ fail (printf "\n\nvalues cannot be used:\n%s\n" (join "\n" $faults)) }}{{ end -}}
{{- end }}

{{- define "revocation.validate.tls" -}}
{{- $tls := .Values.tls }}
{{- if and (eq $tls.mode "existingSecret") (not $tls.existingSecret) }}
tls.existingSecret: is empty; name the secret that holds tls.crt and tls.key, or choose another tls.mode
{{- end }}
{{- if and (ne $tls.mode "existingSecret") $tls.existingSecret }}
tls.existingSecret: is not used with tls.mode {{ $tls.mode }}; set tls.mode to existingSecret, or leave it empty
{{- end }}
{{- if and (eq $tls.mode "certManager") (not $tls.certManager.issuerRef.name) }}
tls.certManager.issuerRef.name: is empty; name the Issuer or ClusterIssuer that signs
{{- end }}
{{- if and (eq .Values.probes.kind "grpc") (ne $tls.mode "insecure") }}
probes.kind: grpc needs tls.mode insecure, because kubelets speak plain text to gRPC; set it to http
{{- end }}
{{- end }}

{{- define "revocation.validate.auth" -}}
{{- $auth := .Values.auth }}
{{- $own := or $auth.bind $auth.existingRoles }}
{{- if eq $auth.mode "anonymous" }}
{{- if or $auth.bearer $own }}
auth.mode: anonymous asks for no identity, but auth.bearer, auth.bind or auth.existingRoles is set; set it to roles, or empty those
{{- end }}
{{- if and .Values.realms (not (hasKey .Values.realms "default")) }}
realms: anonymous callers get realm `default`, which is not there; add it, or set auth.mode to roles
{{- end }}
{{- else }}
{{- if and $auth.existingRoles (or $auth.bind $auth.bearer) }}
auth.existingRoles: replaces auth.bearer and auth.bind; empty those, or leave it out
{{- end }}
{{- if and (not $own) (not (include "revocation.makesClients" .)) }}
auth.bind: is empty, and the chart makes no client certificates here: nobody could call; bind identities to roles, or set auth.existingRoles
{{- end }}
{{- if and (not $own) (include "revocation.makesClients" .) (not $auth.clients) }}
auth.clients: is empty, as is auth.bind: nobody could call; name a client or bind an identity
{{- end }}
{{- if and (not (include "revocation.mutual" .)) (not $auth.existingRoles) (not $auth.bearer) }}
auth.bearer: is empty, and there are no client certificates: nobody could show who they are; add an issuer of bearer tokens
{{- end }}
{{- $names := list "helm-test" }}
{{- range $auth.clients }}
{{- if has .name $names }}
auth.clients: name {{ .name }} is there twice, or reserved
{{- end }}
{{- $names = append $names .name }}
{{- end }}
{{- end }}
{{- if and .Values.helmTest.enabled .Values.realms (not (hasKey .Values.realms .Values.helmTest.realm)) }}
helmTest.realm: {{ .Values.helmTest.realm }} is not one of realms; name one that is, or set helmTest.enabled to false
{{- end }}
{{- end }}

{{- define "revocation.validate.redis" -}}
{{- $redis := .Values.redis }}
{{- if eq $redis.mode "bundled" }}
{{- range list "addresses" "username" "passwordSecret" }}
{{- if index $redis . }}
redis.{{ . }}: is not used with redis.mode bundled; set redis.mode to standalone, sentinel or cluster, or leave it empty
{{- end }}
{{- end }}
{{- if $redis.tls.enabled }}
redis.tls.enabled: the bundled Valkey has no TLS; set redis.mode to standalone, sentinel or cluster
{{- end }}
{{- else }}
{{- if not $redis.addresses }}
redis.addresses: is empty; name the servers of the {{ $redis.mode }} store as HOST:PORT, or set redis.mode to bundled
{{- end }}
{{- if and (eq $redis.mode "standalone") (gt (len $redis.addresses) 1) }}
redis.addresses: a standalone store has one address; set redis.mode to sentinel or cluster for several
{{- end }}
{{- if and (eq $redis.mode "cluster") (ne (int $redis.database) 0) }}
redis.database: a cluster has database 0 only
{{- end }}
{{- if and (not $redis.tls.enabled) (or $redis.tls.caSecret $redis.tls.clientSecret) }}
redis.tls.enabled: is false, but redis.tls.caSecret or redis.tls.clientSecret is set; set it to true, or leave those empty
{{- end }}
{{- end }}
{{- if and (ne $redis.mode "sentinel") $redis.sentinel.passwordSecret }}
redis.sentinel.passwordSecret: is used with redis.mode sentinel only
{{- end }}
{{- end }}

{{- define "revocation.validate.scale" -}}
{{- $scale := .Values.autoscaling }}
{{- if $scale.enabled }}
{{- if gt (int $scale.minReplicas) (int $scale.maxReplicas) }}
autoscaling.minReplicas: is above autoscaling.maxReplicas
{{- end }}
{{- if and (eq (int $scale.cpuUtilization) 0) (eq (int $scale.subscribers) 0) }}
autoscaling.cpuUtilization: is 0, as is autoscaling.subscribers: nothing to scale by; set one of them
{{- end }}
{{- if and (ne (int $scale.cpuUtilization) 0) (not (dig "requests" "cpu" "" .Values.resources)) }}
resources.requests.cpu: is missing; autoscaling.cpuUtilization is a share of it
{{- end }}
{{- end }}
{{- end }}

{{- define "revocation.validate.settings" -}}
{{- range list "ack" "session_ack" }}
{{- if and (eq $.Values.redis.mode "bundled") (hasPrefix "replicated" (default "" (index $.Values.settings .))) }}
settings.{{ . }}: the bundled Valkey has no replicas; set it to fsynced or memory
{{- end }}
{{- end }}
{{- end }}
