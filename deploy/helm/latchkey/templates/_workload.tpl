{{/*
The Deployment of a service, its public Service, its PodDisruptionBudget and its HorizontalPodAutoscaler. Needs root, name, port,
internalPort, settings and secretSettings. The values of the service have the rest.
*/}}
{{- define "latchkey.workload" -}}
{{- $values := index .root.Values .name -}}
{{- $fullName := printf "%s-%s" .root.Release.Name .name -}}
{{- $secretSettings := concat .secretSettings $values.secretSettings -}}
{{- $ingressSettings := include "latchkey.ingressSettings" . | fromYaml -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $fullName }}
  labels:
    {{- include "latchkey.labels" . | nindent 4 }}
spec:
  {{- if not $values.autoscaling.enabled }}
  replicas: {{ $values.replicas }}
  {{- end }}
  revisionHistoryLimit: 3
  selector:
    matchLabels:
      {{- include "latchkey.selector" . | nindent 6 }}
  strategy:
    rollingUpdate:
      maxSurge: 1
      maxUnavailable: 0
  template:
    metadata:
      labels:
        {{- include "latchkey.selector" . | nindent 8 }}
        app.kubernetes.io/part-of: latchkey
      annotations:
        prometheus.io/scrape: 'true'
        prometheus.io/port: {{ .internalPort | quote }}
        prometheus.io/path: /metrics
    spec:
      # Otherwise Kubernetes sets variables such as LATCHKEY_AUTH_PORT for every Service of the namespace.
      enableServiceLinks: false
      automountServiceAccountToken: false
      # 5 s of preStop and the 25 s that a service may take to close.
      terminationGracePeriodSeconds: 35
      {{- with .root.Values.image.pullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 1000
        runAsGroup: 1000
        fsGroup: 1000
        seccompProfile:
          type: RuntimeDefault
      topologySpreadConstraints:
        {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
        - maxSkew: 1
          topologyKey: {{ . }}
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "latchkey.selector" $ | nindent 14 }}
        {{- end }}
      containers:
        - name: {{ .name }}
          {{- with .root.Values.image }}
          {{- if $values.digest }}
          image: {{ .repository }}-{{ $.name }}@{{ $values.digest }}
          {{- else }}
          image: {{ .repository }}-{{ $.name }}:{{ .tag | default $.root.Chart.AppVersion }}
          {{- end }}
          imagePullPolicy: {{ .pullPolicy }}
          {{- end }}
          ports:
            - name: public
              containerPort: {{ .port }}
            - name: internal
              containerPort: {{ .internalPort }}
          env:
            {{- range $secretSettings }}
            - name: {{ . }}_FILE
              value: /keys/{{ . | lower | replace "_" "-" }}
            {{- end }}
            {{- range $name, $value := merge (deepCopy $values.settings) .settings $ingressSettings }}
            - name: {{ $name }}
              value: {{ $value | quote }}
            {{- end }}
          volumeMounts:
            - name: keys
              mountPath: /keys
              readOnly: true
          # /health, because a new container must not be restarted while a store or Auth is down.
          startupProbe:
            httpGet:
              path: /health
              port: public
            periodSeconds: 1
            timeoutSeconds: 2
            failureThreshold: 60
          readinessProbe:
            httpGet:
              path: /ready
              port: public
            periodSeconds: 5
            timeoutSeconds: 2
            failureThreshold: 2
          livenessProbe:
            httpGet:
              path: /health
              port: public
            periodSeconds: 10
            timeoutSeconds: 2
            failureThreshold: 6
          lifecycle:
            preStop:
              # By then every node has stopped sending requests to this pod.
              exec:
                command: ['sleep', '5']
          resources:
            {{- toYaml $values.resources | nindent 12 }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: ['ALL']
      volumes:
        - name: keys
          secret:
            secretName: {{ .root.Values.secretName }}
            defaultMode: 288 # 0440
            items:
              {{- range $secretSettings }}
              - key: {{ . | lower | replace "_" "-" }}
                path: {{ . | lower | replace "_" "-" }}
              {{- end }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ $fullName }}
  labels:
    {{- include "latchkey.labels" . | nindent 4 }}
spec:
  selector:
    {{- include "latchkey.selector" . | nindent 4 }}
  ports:
    - name: public
      port: 80
      targetPort: public
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $fullName }}
  labels:
    {{- include "latchkey.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "latchkey.selector" . | nindent 6 }}
{{- with $values.autoscaling }}
{{- if .enabled }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ $fullName }}
  labels:
    {{- include "latchkey.labels" $ | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ $fullName }}
  minReplicas: {{ .minReplicas }}
  maxReplicas: {{ .maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: {{ .targetCPUUtilizationPercentage }}
{{- end }}
{{- end }}
{{- end }}
