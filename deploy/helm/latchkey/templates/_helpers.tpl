{{/* Labels that identify the pods of a service. Needs root and name. */}}
{{- define "latchkey.selector" -}}
app.kubernetes.io/name: latchkey-{{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{/* Labels of every object. Needs root. */}}
{{- define "latchkey.labels" -}}
app.kubernetes.io/part-of: latchkey
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{/* Public settings that follow from the ingress. Needs root and name. */}}
{{- define "latchkey.ingressSettings" -}}
{{- with .root.Values.ingress }}
{{- if .enabled }}
TRUSTED_PROXIES: {{ .trustedProxies | quote }}
{{- if eq $.name "auth" }}
PUBLIC_URL: https://{{ .authHost }}
CONSOLE_BUSINESS_URL: https://{{ .businessHost }}
{{- else }}
CORS_ORIGINS: https://{{ .authHost }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
